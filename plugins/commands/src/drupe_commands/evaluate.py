"""`drupe evaluate`: measure a package with an evaluator."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import drupe
from drupe.api import UsageError
from drupe_commands.flags import FlagApp, declared_options, refuse_wrong_values
from drupe_commands.messages import tell
from drupe_commands.package_records import from_record
from drupe_commands.parameters import MODEL, JsonResult, Package, Provider, set_option
from drupe_commands.settings import settings_of

if TYPE_CHECKING:
    from drupe.api import Evaluator, Metric, Option, Registry

SPEED = "speed"
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
        str | None,
        typer.Option(
            metavar="<name>",
            help="What measures; drupe evaluators lists them.  [default: the task's own]",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    speed: Annotated[
        bool,
        typer.Option(
            "--speed",
            help="Measure prompt and decode rates as well, with the evaluator speed.",
            rich_help_panel=MEASURING,
        ),
    ] = False,
    settings: Annotated[
        list[str] | None,
        set_option("<[name.]key=value>", "Set a key of an evaluator, which drupe evaluators NAME lists", MEASURING),
    ] = None,
    provider: Provider = None,
    as_json: JsonResult = False,
    options: Mapping[str, Any],
) -> None:
    """Measure a package: alone, or against what it was made of.

    Of text generation: perplexity, and with --against also KL divergence and top-1 agreement. Of embeddings, always
    with --against: cosine similarity, and agreement on nearest texts. A checkpoint to compare with is run at float32,
    one layer at a time.
    """
    from drupe.api import CheckFailed, registry

    found = registry()
    refuse_wrong_values(options, found.options)
    evaluators = list(_evaluators(package, evaluator, speed, found))
    if against is not None and [each.name for each in evaluators] == [SPEED]:
        raise UsageError(
            f"--against has no effect with the evaluator '{SPEED}', which measures one package",
            cure=f"leave --against out; or leave --evaluator {SPEED} out and give --speed, which measures both",
        )
    asked = _configurations(evaluators, options, settings or ())
    metrics: list[Metric] = []
    failure: CheckFailed | None = None
    for each, values in asked:
        try:
            metrics += _measure(package, None if each.name == SPEED else against, each, values, provider)
        except CheckFailed as error:
            if not error.metrics:
                raise
            metrics += error.metrics
            failure = error
    if against is not None and _is_another_source(package, against):
        tell(f"note: the record of {package} says that it was made of another model than {against}")
    _show(metrics, asked, as_json)
    if failure:  # what was measured is worth knowing beyond a limit as well
        raise failure


class Evaluate(FlagApp):
    """The command, with the options of those plugins that bring evaluators."""

    def __init__(self) -> None:
        from drupe.api import registry

        super().__init__("evaluate", evaluate, evaluation_options(registry()), registry())


def evaluation_options(found: Registry) -> list[Option]:
    """The options of the plugins that bring evaluators; none of them is imported for it."""
    owners = [entry.plugin for entry in found.evaluators]
    return [
        option
        for option in declared_options(found)
        if any(owner in owners and not each.extends for each, owner in found.owners[option.name])
    ]


def _evaluators(package: str, named: str | None, speed: bool, found: Registry) -> Iterator[Evaluator]:
    """The evaluators to measure with. Raises UsageError where none is named, and the task has none."""
    from drupe.api import evaluator_of, resolve_package

    chosen = evaluator_of(named or "", None if named else resolve_package(package, found).task, found)
    if chosen is None:
        raise UsageError(
            f"nothing is known to measure {package} with", cure="--evaluator NAME; drupe evaluators lists them"
        )
    yield chosen
    if speed and chosen.name != SPEED:
        yield found.evaluators.make(SPEED)


def _configurations(
    evaluators: Collection[Evaluator], options: Mapping[str, Any], settings: Iterable[str]
) -> list[tuple[Evaluator, dict[str, Any]]]:
    """What each evaluator is told. Raises UsageError for what none of them reads, and for a wrong value."""
    from drupe.api import configure, flag

    names = " or ".join(f"'{each.name}'" for each in evaluators)
    for name in options:
        if all(name not in _read(each).values() for each in evaluators):
            raise UsageError(f"{flag(name)} has no effect with the evaluator {names}", cure=f"leave {flag(name)} out")
    set_by_key = _settings(evaluators, settings)
    found = []
    for each in evaluators:
        typed = {key: name for key, name in _read(each).items() if name in options}
        values = {key: options[name] for key, name in typed.items()} | set_by_key[each.name]
        named = {key: flag(name) for key, name in typed.items()}
        named |= {key: f"--set {each.name}.{key}" for key in set_by_key[each.name]}
        configure(f"evaluator '{each.name}'", each.Config, values, named)
        found.append((each, values))
    return found


def _settings(evaluators: Collection[Evaluator], texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What `--set` says of each evaluator. A key without an evaluator's name is for those that have it."""
    from drupe.api import unknown

    keys = {each.name: each.Config.model_fields for each in evaluators}
    told: dict[str, dict[str, Any]] = {name: {} for name in keys}
    for setting in settings_of("evaluator", keys, texts):
        asked = [setting.owner] if setting.owner else list(keys)
        having = [name for name in asked if setting.key in keys[name]]
        if not having:
            owner = " or ".join(f"'{name}'" for name in asked)
            known = [key for name in asked for key in keys[name]]
            raise unknown(f"key of the evaluator {owner}", setting.key, known, where=setting.typed)
        for name in having:
            told[name][setting.key] = setting.value
    return told


def _read(evaluator: Evaluator) -> dict[str, str]:
    """For keys of an evaluator's configuration, the options that set them: as it says, or the option of that name."""
    from drupe.api import registry

    alike = {key: key for key in evaluator.Config.model_fields if key in registry().options}
    return {**alike, **evaluator.options}


def _measure(
    package: str, against: str | None, evaluator: Evaluator, values: Mapping[str, Any], provider: str | None
) -> tuple[Metric, ...]:
    from drupe_console import progress

    return drupe.evaluate(
        package, against, evaluator=evaluator.name, provider=provider, progress=progress(lines=False), **values
    )


def _is_another_source(package: str, against: str) -> bool:
    """Whether the package's record names another source than `against`, and than what `against` was made of.

    False where the sources are of different kinds, because their fingerprints say nothing then.
    """
    from drupe.api import registry, resolve

    source = _recorded_source(Path(package))
    if source is None:
        return False
    model = resolve(against, {}, registry())
    fingerprint = registry().kinds.make(model.kind).fingerprint(model, thorough=False)
    others = [{"kind": model.kind, "fingerprint": fingerprint}, _recorded_source(model.location)]
    alike = [other["fingerprint"] for other in others if other and other["kind"] == source["kind"]]
    return bool(alike) and source["fingerprint"] not in alike


def _recorded_source(package: Path) -> dict[str, Any] | None:
    """What the record of a package says of its source; None for a model without a record."""
    return from_record(package, lambda record: {key: record["source"][key] for key in ("kind", "fingerprint")})


def _show(metrics: Iterable[Metric], asked: Iterable[tuple[Evaluator, dict[str, Any]]], as_json: bool) -> None:
    from drupe_console import figure, table

    if as_json:
        json.dump(_document(metrics, asked), sys.stdout, indent=1)
        print()
        return
    rows = [(each.name.replace("_", " "), figure(each.value), each.unit, each.better) for each in metrics]
    table(rows, ("metric", "value", "unit", "better"))


def _document(metrics: Iterable[Metric], asked: Iterable[tuple[Evaluator, dict[str, Any]]]) -> dict[str, Any]:
    """The metrics, and the whole settings that they were measured with."""
    from drupe.api import configure

    settings: dict[str, Any] = {}
    for each, values in reversed(list(asked)):
        settings |= configure(f"evaluator '{each.name}'", each.Config, values).model_dump(mode="json")
    return {**{metric.name: metric.value for metric in metrics}, "settings": settings}
