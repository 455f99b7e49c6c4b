"""Run Drupe's and the model builder's int4 packages in onnxruntime-genai in turn, each in a process of its own.

    python3 dev.py bench decode [--shape NAME | --checkpoint DIR | --packages DRUPE BUILDER] [`drupe optimize` options]

Prints the prefill and decode rates of both, as configured and with equal threads, with the ratios.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from checkpoints import SHAPES, cached
from convert import with_builder, with_drupe
from drupe.api import usable_threads
from measure import (
    CACHE,
    Failed,
    busy_machine,
    folder_bytes,
    note,
    python,
    ratio,
    readable_failures,
    show,
    size,
)

RATES = Path(__file__).with_name("rates.py")
Rates = dict[str, float]


def measured(package: Path, arguments: argparse.Namespace, threads: int | None) -> Rates:
    """One process that runs one package."""
    command = [python(), str(RATES), str(package), "--prompt", str(arguments.prompt), "--new", str(arguments.new)]
    command += ["--threads", str(threads)] if threads else []
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise Failed(f"{package} does not run (exit status {ran.returncode}):\n{ran.stderr[-4000:]}")
    found: Rates = json.loads(ran.stdout.splitlines()[-1])
    return found


def compare(packages: dict[str, Path], arguments: argparse.Namespace, threads: int | None) -> dict[str, Rates]:
    """The best rates of each package, measured in turn."""
    found: dict[str, Rates] = {name: {} for name in packages}
    label = f"{threads} threads" if threads else "as configured"
    for number in range(arguments.repeats):
        for name, package in packages.items():
            rates = measured(package, arguments, threads)
            found[name] = {key: max(rates[key], found[name].get(key, 0.0)) for key in rates}
            said = ", ".join(f"{key} {value:.0f}" for key, value in rates.items())
            note(f"{name}, {label}, run {number + 1} of {arguments.repeats}: {said} tok/s")
    return found


def make_packages(arguments: argparse.Namespace, options: list[str]) -> dict[str, Path]:
    """Convert with both tools, to measure the packages of their current versions."""
    checkpoint = arguments.checkpoint or cached(arguments.shape, arguments.layers)
    packages = {name: CACHE / "packages" / name for name in ("drupe", "builder")}
    note(f"converting {checkpoint} with both ...")
    with_drupe(checkpoint, packages["drupe"], options)
    with_builder(checkpoint, packages["builder"])
    return packages


def report(result: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Print the result as a table."""
    rows = []
    for label, rates in (("as configured", "configured"), (f"{result['threads']} threads each", "same_threads")):
        for key in ("prefill", "decode"):
            ours, theirs = (result[rates][name][key] for name in ("drupe", "builder"))
            row = (f"{key}, {label}", f"{ours:.1f} tok/s", f"{theirs:.1f} tok/s", ratio(ours, theirs))
            rows.append(row)
    ours, theirs = (result["bytes"][name] for name in ("drupe", "builder"))
    rows.append(("package", size(ours), size(theirs), ratio(ours, theirs)))
    title = f"prompt {arguments.prompt}, new {arguments.new} tokens, the best of {arguments.repeats} processes each"
    show(title, ("", "drupe", "genai builder", "drupe / builder"), rows, [result["disturbance"]])


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        prog="bench decode",
        description=(__doc__ or "").splitlines()[0],
        epilog="All other options go to `drupe optimize`: --quality fast, --block-size 32, --symmetric, ...",
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--packages", type=Path, nargs=2, metavar=("DRUPE", "BUILDER"), help="two packages that exist")
    source.add_argument("--checkpoint", type=Path, metavar="DIR", help="convert this checkpoint with both")
    source.add_argument(
        "--shape", choices=SHAPES, default="qwen2.5-0.5b", help="make a checkpoint of this shape (default: %(default)s)"
    )
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt (default: %(default)s)")
    parser.add_argument("--new", type=int, default=64, help="tokens generated (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each package (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=usable_threads(), help="for the second comparison (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments, options = parser.parse_known_args()
    if options and arguments.packages:
        parser.error(f"unknown: {' '.join(options)}")
    with readable_failures():
        if arguments.packages:
            packages = dict(zip(("drupe", "builder"), arguments.packages, strict=True))
        else:
            packages = make_packages(arguments, options)
        result = {
            "packages": {name: str(package) for name, package in packages.items()},
            "bytes": {name: folder_bytes(package) for name, package in packages.items()},
            "threads": arguments.threads,
            "disturbance": busy_machine(),
            "configured": compare(packages, arguments, None),
            "same_threads": compare(packages, arguments, arguments.threads),
        }
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        report(result, arguments)


if __name__ == "__main__":
    main()
