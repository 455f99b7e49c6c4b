"""What a command line says of evaluators: the options that they read, and `--set`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from drupe.api import UsageError
from drupe_commands.flags import declared_options
from drupe_commands.settings import settings_of

if TYPE_CHECKING:
    from drupe.api import Evaluator, Option, Registry


def evaluation_options(found: Registry) -> list[Option]:
    """The options of the plugins that bring evaluators; none of them is imported for it."""
    owners = [entry.plugin for entry in found.evaluators]
    return [
        option
        for option in declared_options(found)
        if any(owner in owners and not each.extends for each, owner in found.owners[option.name])
    ]


def configurations(
    evaluators: Collection[Evaluator], options: Mapping[str, Any], settings: Iterable[str]
) -> list[dict[str, Any]]:
    """What each evaluator is told. Raises UsageError for what none of them reads, and for a wrong value."""
    from drupe.api import configure, flag

    for name in options:
        if all(name not in _read(each).values() for each in evaluators):
            what = f"{flag(name)} has no effect with the evaluator {named_evaluators(evaluators)}"
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


def named_evaluators(evaluators: Iterable[Evaluator]) -> str:
    return " or ".join(f"'{each.name}'" for each in evaluators)
