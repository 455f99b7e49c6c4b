"""`drupe evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import drupe

if TYPE_CHECKING:
    from drupe.api import Metric


def evaluate(
    package: Annotated[str, typer.Argument(help="Folder that `drupe optimize` made.")],
    against: Annotated[
        str | None, typer.Option(help="What to compare it with: a package, or the checkpoint it was made from.")
    ] = None,
    evaluation_data: Annotated[
        str | None,
        typer.Option(
            help="Text to measure on: FILE of text or .jsonl, FOLDER, or OWNER/NAME of a data set of the hub.",
            show_default="a short one that drupe brings",
        ),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="How many tokens of the text to predict.", show_default="256")
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="How many of them in one context.")] = 256,
    seed: Annotated[
        int | None, typer.Option(help="Pieces of the text chosen by this number.", show_default="its beginning")
    ] = None,
    max_kl: Annotated[
        float | None, typer.Option(help="Fail where the KL divergence is beyond.", show_default="no limit")
    ] = None,
    speed: Annotated[bool, typer.Option("--speed", help="Measure prompt and decode rates as well.")] = False,
    provider: Annotated[str | None, typer.Option(help="Run on this provider, not the one it was made for.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Measure a package: the perplexity of a text, and against a reference KL divergence and top-1 agreement.

    A checkpoint as reference is run at float32, one layer at a time.
    """
    from drupe_eval_quality.limit import refuse_divergence, refuse_useless
    from drupe_eval_quality.progress import Bar

    refuse_useless(max_kl, against)
    settings: dict[str, Any] = {
        "evaluation_data": evaluation_data,
        **({} if tokens is None else {"tokens": tokens}),
        "length": length,
        "seed": seed,
    }
    metrics = drupe.evaluate(package, against, provider=provider, progress=Bar(), **settings)
    if speed:
        metrics += drupe.evaluate(
            package, evaluator="speed", provider=provider, progress=Bar(), evaluation_data=evaluation_data
        )
    if against is not None and _is_another_source(package, against):
        print(f"note: {package} was not made of {against}, its record says", file=sys.stderr)
    if as_json:
        json.dump(_document(metrics, {**settings, "max_kl": max_kl}), sys.stdout, indent=1)
        print()
    else:
        _print_table(metrics)
    refuse_divergence(metrics, max_kl)  # what was measured is worth knowing beyond the limit as well


def _is_another_source(package: str, against: str) -> bool:
    """Whether the package's own record names another source of the same kind, by its fingerprint."""
    from drupe.api import RECORD, registry, resolve

    record = Path(package) / RECORD
    if not record.is_file():
        return False
    recorded = json.loads(record.read_text(encoding="utf-8"))["source"]
    model = resolve(against, {})
    if recorded["kind"] != model.kind:
        return False
    fingerprint = registry().kinds.make(model.kind).fingerprint(model, thorough=False)
    return bool(recorded["fingerprint"] != fingerprint)


def _document(metrics: tuple[Metric, ...], settings: dict[str, Any]) -> dict[str, Any]:
    """The metrics, and what they were measured on, with the text's SHA-256."""
    from drupe_eval_quality.quality import QualityConfig

    measured = {metric.name: metric.value for metric in metrics}
    return {**measured, "settings": QualityConfig(**settings).model_dump(mode="json")}


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
