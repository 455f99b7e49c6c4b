"""`drupe evaluate`: measure a package with one evaluator or several."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe.api import UsageError
from drupe_commands.active_adapter import refuse_kept, with_active
from drupe_commands.asked_evaluators import asked_evaluators
from drupe_commands.flags import FlagApp, declared_options
from drupe_commands.measured import measured_with
from drupe_commands.messages import tell
from drupe_commands.package_records import from_record
from drupe_commands.parameters import MODEL, ActiveAdapter, JsonResult, Package, Provider, set_option
from drupe_commands.settings import settings_of

if TYPE_CHECKING:
    from drupe.api import Evaluator, Option, Registry

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
            f"--against has no effect with the evaluator {_named(evaluators)}, which measures one package",
            cure="leave --against out; drupe benchmark PACKAGE PACKAGE compares how fast packages are",
        )
    configured = _configurations(evaluators, options, settings or ())
    refuse_kept(adapter, keep)
    if keep:
        from drupe_files.kept_measurements import refuse_unkeepable

        refuse_unkeepable(Path(package))
    with with_active(package, adapter) as measurable:
        measured = measured_with(list(zip(asked, configured, strict=True)), measurable, against, provider)
    if against is not None and _is_another_source(package, against):
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


def evaluation_options(found: Registry) -> list[Option]:
    """The options of the plugins that bring evaluators; none of them is imported for it."""
    owners = [entry.plugin for entry in found.evaluators]
    return [
        option
        for option in declared_options(found)
        if any(owner in owners and not each.extends for each, owner in found.owners[option.name])
    ]


def _named(evaluators: Iterable[Evaluator]) -> str:
    return " or ".join(f"'{each.name}'" for each in evaluators)


def _configurations(
    evaluators: Collection[Evaluator], options: Mapping[str, Any], settings: Iterable[str]
) -> list[dict[str, Any]]:
    """What each evaluator is told. Raises UsageError for what none of them reads, and for a wrong value."""
    from drupe.api import configure, flag

    for name in options:
        if all(name not in _read(each).values() for each in evaluators):
            what = f"{flag(name)} has no effect with the evaluator {_named(evaluators)}"
            raise UsageError(what, cure=f"leave {flag(name)} out")
    set_by_key = _settings(evaluators, settings)
    found: list[dict[str, Any]] = []
    for each in evaluators:
        typed = {key: name for key, name in _read(each).items() if name in options}
        values = {key: options[name] for key, name in typed.items()} | set_by_key[each.name]
        named = {key: flag(name) for key, name in typed.items()}
        named |= {key: f"--set {each.name}.{key}" for key in set_by_key[each.name]}
        configure(f"evaluator '{each.name}'", each.Config, values, named)
        found.append(values)
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


def _is_another_source(package: str, against: str) -> bool:
    """Whether the package's record names another source than `against`, and than what `against` was made of.

    False where the sources are of different kinds, because their fingerprints say nothing then.
    """
    from drupe.api import registry, resolve

    source = _recorded_source(Path(package))
    if source is None:
        return False
    model = resolve(against, _recorded_options(Path(package), against), registry())
    fingerprint = registry().kinds.make(model.kind).fingerprint(model, thorough=False)
    others = [{"kind": model.kind, "fingerprint": fingerprint}, _recorded_source(model.location)]
    alike = [other["fingerprint"] for other in others if other and other["kind"] == source["kind"]]
    return bool(alike) and source["fingerprint"] not in alike


def _recorded_source(package: Path) -> dict[str, Any] | None:
    """What the record of a package says of its source; None for a model without a record."""
    return from_record(package, lambda record: {key: record["source"][key] for key in ("kind", "fingerprint")})


def _recorded_options(package: Path, source: str) -> Mapping[str, Any]:
    """How the model that the package was made of was found, with its adapters; empty for another model."""
    planned = from_record(package, lambda record: record["plan"]["source"]) or {}
    same = Path(planned.get("reference", "")) == Path(source).expanduser().absolute()
    return planned.get("options", {}) if same else {}
