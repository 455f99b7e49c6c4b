"""OliveFile and Component: a file of either dialect in one form.

A component is `{"type": T, option: value}`, or `{"type": T, "config": {option: value}}` as before Olive 0.7.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from drupe.api import Record, UsageError
from drupe_olive_compat.answers import Ledger, changed, left_out


class Component(Record):
    """A part of a file that has a type and options. place: where it stands in the file."""

    place: str
    type: str
    options: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Its place and its type."""
        return f"{self.place} ({self.type})"

    def at(self, option: str) -> str:
        """The place of one of its options."""
        return f"{self.place}.{option}"


@dataclasses.dataclass
class OliveFile:
    """A workflow file of Olive. settings: the keys that stand at the top or in `engine`, by name."""

    model: Component
    systems: dict[str, Component] = dataclasses.field(default_factory=dict)
    data_configs: list[Component] = dataclasses.field(default_factory=list)
    evaluators: dict[str, Component] = dataclasses.field(default_factory=dict)
    passes: list[Component] = dataclasses.field(default_factory=list)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


def is_olives(document: Mapping[str, Any]) -> bool:
    """Whether a document is a workflow of Olive: it names an `input_model`, and its passes have names."""
    return isinstance(document.get("input_model"), dict) and not isinstance(document.get("passes"), list)


def file_of(document: Mapping[str, Any], ledger: Ledger) -> OliveFile:
    """The file in a document. Raises UsageError, with the place, for a part that is no such part."""
    keys = {**_mapping(document.get("engine"), "engine"), **document}
    file = OliveFile(component(keys.pop("input_model"), "input_model", ledger))
    keys.pop("engine", None)
    for name, value in _mapping(keys.pop("systems", None), "systems").items():
        file.systems[name] = component(value, f"systems.{name}", ledger)
    for name, value in _mapping(keys.pop("evaluators", None), "evaluators").items():
        file.evaluators[name] = component(value, f"evaluators.{name}", ledger)
    for name, value in _mapping(keys.pop("passes", None), "passes").items():
        file.passes.append(component(_first(value, f"passes.{name}", ledger), f"passes.{name}", ledger))
    for place, value in _entries(keys.pop("data_configs", None)):
        file.data_configs.append(component(value, place, ledger))
    file.settings = keys
    return file


def component(value: Any, place: str, ledger: Ledger) -> Component:
    """A component in either dialect. Where both name an option, the inner one counts, as in Olive."""
    outer = dict(_mapping(value, place))
    inner = outer.pop("config", None)
    kind = outer.pop("type", "")
    if inner is not None:
        inner = _mapping(inner, f"{place}.config")
        for name in sorted(outer.keys() & inner.keys()):
            ledger.say(f"{place}.{name}", changed(f"{name} stands there twice; the one in config counts"))
    return Component(place, str(kind), {**outer, **(inner or {})})


def _first(value: Any, place: str, ledger: Ledger) -> Any:
    """A pass may be a list of alternatives, for a search. The first is used."""
    if not isinstance(value, list):
        return value
    if not value:
        raise UsageError("the list of passes is empty", where=place)
    if len(value) > 1:
        types = ", ".join(str(each.get("type")) if isinstance(each, dict) else str(each) for each in value[1:])
        ledger.say(
            place, left_out(f"the alternatives {types}: only values of options are searched, and the first is used")
        )
    return value[0]


def _entries(value: Any) -> list[tuple[str, Any]]:
    """Data configs are a list; before Olive 0.6 they were a mapping."""
    if isinstance(value, dict):
        return [(f"data_configs.{name}", each) for name, each in value.items()]
    if value is None:
        return []
    if not isinstance(value, list):
        raise UsageError(f"{value!r} is no list of data configs", where="data_configs")
    named = [each.get("name", number) if isinstance(each, dict) else number for number, each in enumerate(value)]
    return [(f"data_configs.{name}", each) for name, each in zip(named, value, strict=True)]


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{value!r} does not fit: a mapping of keys is wanted", where=place)
    return value
