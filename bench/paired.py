"""Decode with several packages in turn, in one process, in several rounds: a busy machine disturbs the ratios little.

    python3 dev.py bench paired BASE PACKAGE... [--rounds 12] [--threads 2] [--prompt 128] [--new 24]

In a round each package reads a prompt and generates some tokens, one package right after another, so that other load
disturbs all of them. A package's ratio is the median over the rounds of BASE's time divided by the package's time.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from drupe.api import usable_threads
from measure import busy_machine, show
from rates import once, opened, window


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="bench paired", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("packages", type=Path, nargs="+", metavar="PACKAGE", help="the first is the base of the ratios")
    parser.add_argument("--rounds", type=int, default=12, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=usable_threads(), help="threads of each (default: %(default)s)")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt (default: %(default)s)")
    parser.add_argument("--new", type=int, default=24, help="tokens generated (default: %(default)s)")
    arguments = parser.parse_args()
    import onnxruntime_genai as og

    busy = busy_machine()
    models = {package.name: opened(og, package, arguments.threads) for package in arguments.packages}
    cache = max(window(package) for package in arguments.packages)
    prompt = list(range(100, 100 + arguments.prompt))
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        once(og, model, prompt, 2, cache)  # the first run allocates
    for _ in range(arguments.rounds):
        for name, model in models.items():
            times[name].append(once(og, model, prompt, arguments.new, cache)[1] / (arguments.new - 1) * 1e3)
    base = next(iter(times.values()))
    rows = []
    for name, own in times.items():
        ratio = statistics.median(theirs / ours for theirs, ours in zip(base, own, strict=True))
        rows.append((name, f"{min(own):.2f} ms", f"{statistics.median(own):.2f} ms", f"{ratio:.2f} x"))
    title = f"a decoded token, {arguments.threads} threads each, {arguments.rounds} rounds in turn"
    show(title, ("", "least", "median", "times as fast, median of rounds"), rows, [busy])


if __name__ == "__main__":
    main()
