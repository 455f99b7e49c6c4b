"""The plot of `bench quality`: for each model KL divergence against bytes, and against decode rate.

python3 bench/plot.py quality.json quality.png
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frontier import LARGEST, WANTED

OURS, THEIRS, GOAL = "#1f5fa8", "#c8641b", "#5a8f3c"
BALANCED = WANTED["balanced"]
Package = dict[str, Any]


def draw(numbers: dict[str, Any], path: Path) -> None:
    """Write the picture. numbers: as in quality.json."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = numbers["models"]
    labels = _labels([package for model in models.values() for package in model["packages"]])
    figure, axes = pyplot.subplots(2, len(models), figsize=(4.6 * len(models) + 3.0, 9), squeeze=False, sharey="row")
    for column, (name, model) in enumerate(models.items()):
        above, below = axes[0][column], axes[1][column]
        _panel(above, model["packages"], labels, "bytes_ratio")
        _staircase(above, [package for package in model["packages"] if package["tool"] == "drupe"])
        above.plot([0, LARGEST, LARGEST], [BALANCED, BALANCED, 1e-9], color=GOAL, linestyle=":", linewidth=1.5)
        above.set_title(name)
        above.set_xlabel("bytes / builder's default")
        _panel(below, model["packages"], labels, "decode_ratio")
        below.set_xlabel("decode rate / builder's default")
    every = [package["kl_ratio"] for model in models.values() for package in model["packages"]]
    for row in axes:
        row[0].set_ylabel("KL / builder's default (log)")
        row[0].set_ylim(0.8 * min(every), 1.25 * max(every))
    _legend(figure, labels)
    title = (
        f"int4 packages of trained models, {numbers['tokens']} held-out tokens; rates with {numbers['threads']} threads"
    )
    figure.suptitle(title, x=0.42)
    figure.tight_layout(rect=(0, 0, 1 - 3.2 / figure.get_figwidth(), 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _labels(packages: Sequence[Package]) -> dict[tuple[str, str], str]:
    """A short name for each way to make a package: numbers are ours, letters the builder's."""
    keys = dict.fromkeys((package["tool"], package["name"]) for package in packages)
    ours = [key for key in keys if key[0] == "drupe"]
    theirs = [key for key in keys if key[0] != "drupe"]
    numbered = {key: str(number) for number, key in enumerate(ours, 1)}
    return numbered | {key: chr(ord("a") + number) for number, key in enumerate(theirs)}


def _panel(axes: Any, packages: Sequence[Package], labels: dict[tuple[str, str], str], across: str) -> None:
    """Every package as its label in a circle (ours) or a square."""
    from matplotlib.ticker import FuncFormatter

    for package in reversed(packages):  # the first packages matter most and lie on top
        ours = package["tool"] == "drupe"
        box = {
            "boxstyle": "circle,pad=0.22" if ours else "square,pad=0.25",
            "facecolor": OURS if ours else "white",
            "edgecolor": OURS if ours else THEIRS,
            "alpha": 0.88,
        }
        label = labels[package["tool"], package["name"]]
        at = (package[across], package["kl_ratio"])
        axes.text(*at, label, fontsize=8, ha="center", va="center", color="white" if ours else THEIRS, bbox=box)
    wide = [package[across] for package in packages]
    margin = 0.08 * max(max(wide) - min(wide), 0.1)
    axes.set_xlim(min(wide) - margin, max(wide) + margin)
    axes.set_yscale("log")
    axes.axhline(1, color="0.75", linewidth=0.8, zorder=0)
    axes.axvline(1, color="0.75", linewidth=0.8, zorder=0)
    axes.grid(alpha=0.15, which="both")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _staircase(axes: Any, ours: Sequence[Package]) -> None:
    """Our frontier: for each number of bytes, the least divergence of packages with at most that many bytes."""
    across, up, least = [], [], float("inf")
    for package in sorted(ours, key=lambda package: package["bytes_ratio"]):
        if package["kl_ratio"] < least:
            least = package["kl_ratio"]
            across.append(package["bytes_ratio"])
            up.append(least)
    axes.plot([*across, 9], [*up, least], drawstyle="steps-post", color=OURS, linewidth=1.2, alpha=0.6, zorder=0)


def _legend(figure: Any, labels: dict[tuple[str, str], str]) -> None:
    """What the labels mean, on the right."""
    lines = [("drupe", "Drupe", OURS), ("builder", "genai model builder", THEIRS)]
    left, at = 1 - 3.0 / figure.get_figwidth(), 0.93
    for tool, title, colour in lines:
        figure.text(left, at, title, color=colour, weight="bold", fontsize=10)
        for (owner, name), label in labels.items():
            if owner == tool:
                at -= 0.027
                figure.text(left, at, label, color=colour, fontsize=9, family="monospace")
                figure.text(left + 0.02, at, name, color="0.15", fontsize=9)
        at -= 0.05
    figure.text(left, at, f"dotted: the goal for balanced\n(KL {BALANCED} at {LARGEST} x the bytes)", color=GOAL)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2]))
