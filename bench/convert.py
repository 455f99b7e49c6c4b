"""Convert a checkpoint to int4 with Drupe and with onnxruntime-genai's model builder in turn, each in its own process.

    python3 dev.py bench convert [--shape NAME | --checkpoint DIR] [--copy] [options of `drupe optimize`]

Prints wall time, CPU time, peak memory and output bytes of both, with the ratios.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpoints import SHAPES, cached
from measure import (
    CACHE,
    Measurement,
    alternate,
    best,
    busy_machine,
    drupe,
    folder_bytes,
    measure,
    note,
    python,
    ratio,
    readable_failures,
    seconds,
    show,
    size,
)

BLOCK = 16 << 20


def with_drupe(
    checkpoint: Path, output: Path, options: Sequence[str], environment: Mapping[str, str] | None = None
) -> Measurement:
    """Convert with this checkout's drupe; the closing check is left out, since the builder has none."""
    shutil.rmtree(output, ignore_errors=True)
    command = [drupe(), "optimize", checkpoint, "-o", output, "--precision", "int4", "--no-verify", *options]
    return measure(command, environment=environment)


def with_builder(checkpoint: Path, output: Path, options: Sequence[str] = ()) -> Measurement:
    """onnxruntime-genai's model builder, at its defaults unless extra options (`key=value`) are given."""
    shutil.rmtree(output, ignore_errors=True)
    command = [python(), "-m", "onnxruntime_genai.models.builder", "-i", checkpoint, "-o", output]
    command += ["-p", "int4", "-e", "cpu", "-c", CACHE / "builder"]
    return measure([*command, *(["--extra_options", *options] if options else [])])


def first_run(checkpoint: Path, output: Path, options: list[str]) -> Measurement:
    """Convert as in the first run after installation, which also compiles the inner loops."""
    with tempfile.TemporaryDirectory() as folder:
        return with_drupe(checkpoint, output, options, {"DRUPE_BLOCKQUANT_CACHE": folder})


def copy(checkpoint: Path, output: Path, target: Path) -> Measurement:
    """The cost of moving the bytes: copy the checkpoint to this disk, and write as many bytes as the output has."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    buffer = bytearray(BLOCK)
    view = memoryview(buffer)
    start, cpu = time.perf_counter(), time.process_time()
    for path in sorted(path for path in checkpoint.iterdir() if path.is_file()):
        with path.open("rb", buffering=0) as source, (target / path.name).open("wb", buffering=0) as copied:
            while count := source.readinto(buffer):
                copied.write(view[:count])
    left = folder_bytes(output)
    with (target / "output").open("wb", buffering=0) as written:
        while left:
            left -= written.write(view[: min(left, BLOCK)])
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    shutil.rmtree(target)
    return Measurement(wall, cpu, None)


def run(arguments: argparse.Namespace, options: list[str]) -> dict[str, Any]:
    """Measure everything that was asked for."""
    checkpoint = arguments.checkpoint or cached(arguments.shape, arguments.layers)
    outputs = {name: arguments.output / name for name in ("drupe", "builder")}
    result: dict[str, Any] = {"checkpoint": str(checkpoint), "checkpoint_bytes": folder_bytes(checkpoint)}
    result |= {"drupe_options": options, "disturbance": busy_machine()}

    result["first_run"] = first_run(checkpoint, outputs["drupe"], options).wall_s
    note(f"drupe, first run after installation: {result['first_run']:.2f} s")
    tools: dict[str, Callable[[], Measurement]] = {"drupe": lambda: with_drupe(checkpoint, outputs["drupe"], options)}
    if not arguments.no_builder:
        tools["builder"] = lambda: with_builder(checkpoint, outputs["builder"])
    if arguments.copy:
        tools["copy"] = lambda: copy(checkpoint, outputs["drupe"], arguments.output / "copy")
    for name, runs in alternate(tools, arguments.repeats).items():
        result[name] = best(runs)
        if name in outputs:
            result[name]["output_bytes"] = folder_bytes(outputs[name])
    if not arguments.keep:
        for folder in outputs.values():
            shutil.rmtree(folder, ignore_errors=True)
    return result


def report(result: dict[str, Any], repeats: int) -> None:
    """Print the result as a table."""
    ours, theirs, copied = result["drupe"], result.get("builder", {}), result.get("copy")
    figures = (
        ("wall time, best", "wall_s", seconds),
        ("wall time, median", "wall_median_s", seconds),
        ("CPU time", "cpu_s", seconds),
        ("peak memory", "peak_bytes", size),
        ("output", "output_bytes", size),
    )
    rows = []
    for label, key, text in figures:
        row = [label, text(ours[key])]
        if theirs:
            row += [text(theirs[key]), ratio(theirs[key], ours[key])]
        rows.append(row)
    remarks = [
        f"First run after installation, compilation included: {seconds(result['first_run'])}.",
        result["disturbance"],
    ]
    if copied:
        remarks.append(f"Copying the checkpoint and writing the output's bytes: {seconds(copied['wall_s'])}.")
        remarks.append(f"drupe / copying: {ratio(ours['wall_s'], copied['wall_s'])}.")
    columns = ["", "drupe", *(["genai builder", "builder / drupe"] if theirs else [])]
    runs = f"{repeats} {'runs' if repeats > 1 else 'run'} each"
    title = f"{Path(result['checkpoint']).name} to int4, {size(result['checkpoint_bytes'])} in, {runs}"
    show(title, columns, rows, remarks)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        prog="bench convert",
        description=(__doc__ or "").splitlines()[0],
        epilog="All other options go to `drupe optimize`: --quality fast, --block-size 32, --symmetric, ...",
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--checkpoint", type=Path, metavar="DIR", help="a checkpoint's folder")
    source.add_argument(
        "--shape", choices=SHAPES, default="qwen2.5-0.5b", help="make a checkpoint of this shape (default: %(default)s)"
    )
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each tool (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", default=CACHE / "packages", help="where packages are written"
    )
    parser.add_argument("--keep", action="store_true", help="keep the packages, for `bench decode`")
    parser.add_argument(
        "--no-builder", action="store_true", help="measure drupe only: the builder needs 6.4 bytes a parameter"
    )
    parser.add_argument("--copy", action="store_true", help="measure copying the checkpoint's bytes as well")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments, options = parser.parse_known_args()
    with readable_failures():
        result = run(arguments, options)
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        report(result, arguments.repeats)


if __name__ == "__main__":
    main()
