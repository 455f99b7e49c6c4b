"""`drupe evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import drupe

if TYPE_CHECKING:
    from drupe.api import Metric


def evaluate(
    package: Annotated[str, typer.Argument(help="Folder that `drupe optimize` made.")],
    against: Annotated[
        str | None, typer.Option(help="What to compare it with: a package, or the checkpoint it was made from.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="Text to measure on, in UTF-8.", show_default="a short one that drupe brings")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens of the text to predict.")] = 256,
    window: Annotated[int, typer.Option(min=1, help="How many of them in one context.")] = 256,
    speed: Annotated[bool, typer.Option("--speed", help="Measure prompt and decode rates as well.")] = False,
    provider: Annotated[str | None, typer.Option(help="Run on this provider, not the one it was made for.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Measure a package: the perplexity of a text, and against a reference KL divergence and top-1 agreement.

    A checkpoint as reference is packaged at float32 into a temporary folder first.
    """
    from drupe_eval_quality.progress import Bar

    metrics = drupe.evaluate(
        package, against, provider=provider, progress=Bar(), text=text, tokens=tokens, window=window
    )
    if speed:
        metrics += drupe.evaluate(package, evaluator="speed", provider=provider, progress=Bar(), text=text)
    if as_json:
        json.dump({metric.name: metric.value for metric in metrics}, sys.stdout, indent=1)
        print()
    else:
        _print_table(metrics)


def _print_table(metrics: tuple[Metric, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    grid.add_column("metric")
    grid.add_column("value", justify="right")
    grid.add_column("unit")
    grid.add_column("better")
    for metric in metrics:
        grid.add_row(metric.name.replace("_", " "), f"{metric.value:,.4g}", metric.unit, metric.better)
    Console().print(grid)
