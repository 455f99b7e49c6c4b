"""Make packages of small trained models at every quality, and measure bytes and closeness to the source of each.

    python3 dev.py bench quality [--models demo llama qwen2] [--only balanced] [--tokens 4096] [--output DIR]

Prints a table for each model: bytes, KL divergence from the float32 source, top-1 agreement, perplexity, decode rate,
against those of onnxruntime-genai's model builder. Writes the numbers (quality.json) and a plot (quality.png).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from convert import with_drupe
from decode import compare
from drupe.api import DrupeError, usable_threads
from frontier import LARGEST, WANTED, Point, frontier, outside
from measure import CACHE, Failed, busy_machine, note, readable_failures, show, size
from rungs import BASE, RUNGS, NotOffered, Rung, package_bytes, remove

HERE = Path(__file__).parent
SHAPE = "qwen2.5-0.5b"
SHAPE_LARGEST, SHAPE_FASTER = 1.08, 1.25
"""The goals of balanced on a real model's shape: the most bytes and the least decode rate, times the builder's."""


@dataclass(frozen=True)
class Result:
    """All packages of a model, and why the missing rungs are missing."""

    points: tuple[Point, ...]
    left_out: dict[str, str]

    @property
    def base(self) -> Point:
        """The builder's default."""
        return next(point for point in self.points if point.label == BASE.label)

    @property
    def ours(self) -> list[Point]:
        return [point for point in self.points if point.tool == "drupe"]

    @property
    def theirs(self) -> list[Point]:
        return [point for point in self.points if point.tool == "builder"]


def models() -> dict[str, Path]:
    """The trained checkpoints: the one that ships with Drupe, and those in this folder."""
    from drupe_demo import MODEL

    return {"demo": Path(MODEL)} | {path.parent.name: path.parent for path in sorted(HERE.glob("models/*/config.json"))}


def measured(checkpoint: Path, rungs: Sequence[Rung], folder: Path, arguments: argparse.Namespace) -> Result:
    """Make and measure the packages of a model."""
    packages, left_out = make(checkpoint, rungs, folder)
    source = folder / "source"
    with_drupe(checkpoint, source, ["--precision", "fp32", "--all-logits"])
    quality = {}
    for rung, package in packages.items():
        try:
            quality[rung] = divergence(package, source, arguments)
        except DrupeError as error:
            if rung.tool == "drupe":
                raise Failed(f"the package of {rung.label} cannot be measured: {error}") from error
            left_out[rung.label] = f"its package does not run: {error.what}"
            continue
        note(f"{rung.label}: KL {quality[rung]['kl_divergence']:.5f}, {size(package_bytes(package))}")
    rates = compare({rung.label: packages[rung] for rung in quality}, arguments, arguments.threads)
    points = [
        Point(
            rung.name,
            rung.tool,
            package_bytes(packages[rung]),
            metrics["kl_divergence"],
            metrics["top1_agreement"],
            metrics["perplexity"],
            **rates[rung.label],
        )
        for rung, metrics in quality.items()
    ]
    return Result(tuple(points), left_out)


def make(checkpoint: Path, rungs: Sequence[Rung], folder: Path) -> tuple[dict[Rung, Path], dict[str, str]]:
    """The packages, and the errors of rungs that could not be made."""
    packages, left_out = {}, {}
    for number, rung in enumerate(rungs):
        package = folder / f"{number}"
        note(f"making {rung.label} ...")
        try:
            rung.make(checkpoint, package)
            packages[rung] = package
        except NotOffered as complaint:
            left_out[rung.label] = str(complaint)
    return packages, left_out


def divergence(package: Path, source: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """The metrics of a package from Drupe's evaluator, on text that none of the models was trained on."""
    import drupe
    from drupe_demo import HELDOUT

    found = drupe.evaluate(
        package, source, evaluation_data=str(HELDOUT), tokens=arguments.tokens, length=arguments.window
    )
    return {metric.name: metric.value for metric in found}


def on_shape(checkpoint: Path, rungs: Sequence[Rung], folder: Path, arguments: argparse.Namespace) -> list[Point]:
    """Bytes and rates of a real model's shape; its weights are random, so there is no quality to measure."""
    packages, _ = make(checkpoint, rungs, folder)
    rates = compare({rung.label: path for rung, path in packages.items()}, arguments, arguments.threads)
    nothing = float("nan")
    return [
        Point(rung.name, rung.tool, package_bytes(path), nothing, nothing, nothing, **rates[rung.label])
        for rung, path in packages.items()
    ]


def report(model: str, result: Result, arguments: argparse.Namespace) -> None:
    """Print a model's table, the builder's options outside our frontier, and whether the goals are reached."""
    edge = frontier(result.ours)
    rows = []
    for point in result.points:
        ratios = point.against(result.base)
        name = point.label + (" *" if point in edge else "")
        figures = (f"{ratios['bytes_ratio']:.3f} x", f"{point.kl:.5f}", f"{ratios['kl_ratio']:.3f} x")
        more = (f"{point.agreement:.3f}", f"{point.perplexity:.3f}", f"{point.decode:.0f}")
        rows.append((name, size(point.nbytes), *figures, *more, f"{ratios['decode_ratio']:.2f} x"))
    columns = ("", "bytes", "of base", "KL", "of base", "top-1", "perplexity", "tok/s", "of base")
    remarks = [
        f"* on our frontier. Base: builder {BASE.name}. {arguments.threads} threads each.",
        *verdicts(result),
        *(f"Left out, {name}: {why}" for name, why in result.left_out.items()),
    ]
    show(f"{model}: {arguments.tokens} held-out tokens", columns, rows, remarks)


def verdicts(result: Result) -> Iterator[str]:
    """Which goals are reached."""
    found = outside(result.theirs, result.ours)
    yield "The builder's options outside our frontier: " + (", ".join(point.name for point in found) or "none") + "."
    for point in result.ours:
        if point.name in WANTED:
            ratios = point.against(result.base)
            holds = ratios["kl_ratio"] <= WANTED[point.name] and ratios["bytes_ratio"] <= LARGEST
            yield (
                f"{point.name}: {ratios['kl_ratio']:.3f} x the KL at {ratios['bytes_ratio']:.3f} x the bytes; "
                f"goal: {WANTED[point.name]} x at {LARGEST} x: {'reached' if holds else 'not reached'}."
            )


def report_shape(points: Sequence[Point], arguments: argparse.Namespace) -> None:
    """Print bytes and rates of a real model's shape."""
    base = next(point for point in points if point.tool == "builder")
    rows = []
    for point in points:
        ratios = point.against(base)
        sizes = (size(point.nbytes), f"{ratios['bytes_ratio']:.3f} x")
        rates = (f"{point.prefill:.1f}", f"{point.decode:.1f}", f"{ratios['decode_ratio']:.2f} x")
        rows.append((point.label, *sizes, *rates))
    title = f"{SHAPE}'s shape, random weights, {arguments.threads} threads each"
    wanted = f"Goal for balanced: at most {SHAPE_LARGEST} x the bytes, at least {SHAPE_FASTER} x the decode rate."
    show(title, ("", "bytes", "of base", "prefill tok/s", "decode tok/s", "of base"), rows, [wanted])


def as_json(
    results: dict[str, Result], shape: Sequence[Point], busy: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Everything measured, with what it was measured with."""
    packages = ("onnxruntime", "onnxruntime-genai")
    return {
        "versions": {name: version(name) for name in packages},
        "threads": arguments.threads,
        "tokens": arguments.tokens,
        "window": arguments.window,
        "disturbance": busy,
        "models": {
            name: {
                "packages": [point.against(result.base) for point in result.points],
                "outside": [point.name for point in outside(result.theirs, result.ours)],
                "left_out": result.left_out,
            }
            for name, result in results.items()
        },
        "shape": {point.tool: {key: getattr(point, key) for key in ("nbytes", "decode", "prefill")} for point in shape},
    }


@contextmanager
def work_folder(keep: bool) -> Iterator[Path]:
    """A folder for packages."""
    folder = CACHE / "packages" / "quality"
    remove(folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        if not keep:
            remove(folder)


def run(arguments: argparse.Namespace) -> None:
    """Measure what was asked for; write and print the results of each model when it is done."""
    from plot import draw

    busy = busy_machine()
    every = models()
    rungs = [rung for rung in RUNGS if not arguments.only or rung == BASE or rung.name in arguments.only]
    results: dict[str, Result] = {}
    shape: list[Point] = []
    arguments.output.mkdir(parents=True, exist_ok=True)
    with work_folder(arguments.keep) as folder:
        for name in every if arguments.models is None else arguments.models:
            results[name] = measured(every[name], rungs, folder / name, arguments)
            report(name, results[name], arguments)
        checkpoint = arguments.shape_checkpoint
        if checkpoint.is_dir():
            compared = [rung for rung in RUNGS if rung.name == "balanced" or rung == BASE]
            shape = on_shape(checkpoint, compared, folder / SHAPE, arguments)
            report_shape(shape, arguments)
        else:
            note(f"no {checkpoint}: `bench checkpoints {SHAPE}` makes it, to compare rates on a real model's shape")
    numbers = as_json(results, shape, busy, arguments)
    (arguments.output / "quality.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    if results:
        draw(numbers, arguments.output / "quality.png")
    note(f"wrote the numbers to {arguments.output}")
    if busy:
        note(busy)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="bench quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="*", choices=models(), help="default: all")
    parser.add_argument("--only", nargs="+", metavar="RUNG", help="these rungs of rungs.py, and the builder's default")
    parser.add_argument("--tokens", type=int, default=4096, help="held-out tokens (default: %(default)s)")
    parser.add_argument("--window", type=int, default=512, help="tokens of one context (default: %(default)s)")
    parser.add_argument("--prompt", type=int, default=128, help="rates: tokens of the prompt (default: %(default)s)")
    parser.add_argument("--new", type=int, default=64, help="rates: tokens generated (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rates: processes a package (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=usable_threads(), help="rates: of each (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", default=HERE / "results", help="default: bench/results")
    parser.add_argument("--keep", action="store_true", help=f"leave the packages in {CACHE.name}/packages/quality")
    parser.add_argument(
        "--shape-checkpoint",
        type=Path,
        metavar="DIR",
        default=CACHE / "checkpoints" / SHAPE,
        help=f"of {SHAPE}'s shape; left out where it is not there",
    )
    arguments = parser.parse_args()
    with readable_failures():
        run(arguments)


if __name__ == "__main__":
    main()
