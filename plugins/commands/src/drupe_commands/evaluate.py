"""`drupe evaluate`: measure a package with one evaluator or several."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from drupe.api import UsageError
from drupe_commands.active_adapter import refuse_kept, with_active
from drupe_commands.asked_evaluators import asked_evaluators
from drupe_commands.evaluator_settings import configurations, evaluation_options, named_evaluators
from drupe_commands.flags import FlagApp
from drupe_commands.measured import measured_with
from drupe_commands.messages import tell
from drupe_commands.other_source import is_of_another_source
from drupe_commands.parameters import MODEL, ActiveAdapter, JsonResult, Package, Provider, set_option

MEASURING = "Measuring"


def evaluate(
    *,
    package: Package,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="<model>",
            help="What to compare it with: a package, or the checkpoint it was made from.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    evaluator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<name[:metric]>",
            help="What measures, and which of its metrics are shown; drupe evaluators lists them; FILE.py:FUNCTION is "
            "a function of your own; may be given several times.  [default: the task's own]",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        set_option("<[name.]key=value>", "Set a key of an evaluator, which drupe evaluators NAME lists", MEASURING),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="Keep the metrics in the package's drupe.json; drupe report shows them.",
            rich_help_panel=MEASURING,
        ),
    ] = False,
    provider: Provider = None,
    adapter: ActiveAdapter = None,
    as_json: JsonResult = False,
    options: Mapping[str, Any],
) -> None:
    """Measure a package: alone, or against what it was made of.

    Of text generation: perplexity, and with --against also KL divergence and top-1 agreement. Of embeddings, always
    with --against: cosine similarity, and agreement on nearest texts. A checkpoint to compare with is run at float32,
    one layer at a time. The evaluators latency, throughput and footprint measure how fast a package is and what it
    takes; drupe benchmark compares packages by these.
    """
    from drupe.api import registry

    found = registry()
    asked = asked_evaluators(evaluator or (), package, found)
    evaluators = [each.evaluator for each in asked]
    if against is not None and all(each.alone for each in evaluators):
        raise UsageError(
            f"--against has no effect with the evaluator {named_evaluators(evaluators)}, which measures one package",
            cure="leave --against out; drupe benchmark PACKAGE PACKAGE compares how fast packages are",
        )
    configured = configurations(evaluators, options, settings or ())
    refuse_kept(adapter, keep)
    if keep:
        from drupe_files.kept_measurements import refuse_unkeepable

        refuse_unkeepable(Path(package))
    with with_active(package, adapter, against) as measurable:
        measured = measured_with(list(zip(asked, configured, strict=True)), measurable, against, provider)
    if against is not None and is_of_another_source(package, against):
        tell(f"note: the record of {package} says that it was made of another model than {against}")
    if keep:
        measured.keep(package, against)
    if as_json:
        print(json.dumps(measured.document(), indent=1))
    else:
        measured.show()
    if measured.failure:  # what was measured is worth knowing beyond a limit as well
        raise measured.failure


class Evaluate(FlagApp):
    """The command, with the options of those plugins that bring evaluators."""

    def __init__(self) -> None:
        from drupe.api import registry

        super().__init__("evaluate", evaluate, evaluation_options(registry()), registry())
