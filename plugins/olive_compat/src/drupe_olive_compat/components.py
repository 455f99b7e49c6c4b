"""OliveFile and Component: a file of either dialect in one form.

A component is `{"type": T, option: value}`, or `{"type": T, "config": {option: value}}` as before Olive 0.7.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from drupe.api import Record, UsageError, replace
from drupe_olive_compat.answers import Ledger, changed, left_out
from drupe_olive_compat.values import NOT_GIVEN, a_list, a_text, as_taken


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
    """Whether a document is a workflow of Olive: it has an `input_model`, which is a mapping as its passes are."""
    is_mapping = isinstance(document.get("input_model"), dict) or isinstance(document.get("passes"), dict)
    return "input_model" in document and is_mapping


def file_of(document: Mapping[str, Any], ledger: Ledger) -> OliveFile:
    """The file in a document. Raises UsageError, with the place, for a part that is no such part."""
    engine = _mapping(document.get("engine"), "engine")
    for name in sorted(key for key in engine.keys() & document.keys() if engine[key] != document[key]):
        ledger.say(f"engine.{name}", changed(f"{name} stands at the top as well, and that one counts"))
    keys = {**engine, **document}
    file = OliveFile(component(keys.pop("input_model"), "input_model", ledger))
    keys.pop("engine", None)
    for name, value in _mapping(keys.pop("systems", None), "systems").items():
        file.systems[name] = component(value, f"systems.{name}", ledger)
    for name, value in _mapping(keys.pop("evaluators", None), "evaluators").items():
        file.evaluators[name] = _of_values(component(value, f"evaluators.{name}", ledger))
    for name, value in _mapping(keys.pop("passes", None), "passes").items():
        part = component(_first(value, f"passes.{name}", ledger), f"passes.{name}", ledger)
        file.passes.append(_of_values(part))
    for place, value in _entries(keys.pop("data_configs", None)):
        if any(place == each.place for each in file.data_configs):
            raise UsageError("two data configs have this name", where=place, cure="give each a name of its own")
        file.data_configs.append(_of_values(component(value, place, ledger)))
    file.settings = {**keys, **{name: as_taken(keys[name]) for name in _WITH_NUMBERS if name in keys}}
    return file


_WITH_NUMBERS = ("search_strategy", "evaluator", "metrics")
"""Settings that hold numbers."""


def _of_values(part: Component) -> Component:
    """A component whose options have values as Olive's types take them."""
    return replace(part, options=as_taken(part.options))


def component(value: Any, place: str, ledger: Ledger) -> Component:
    """A component in either dialect. Where both name an option, the inner one counts, as in Olive."""
    outer = dict(_mapping(value, place))
    inner = outer.pop("config", None)
    kind = outer.pop("type", "")
    if inner is not None:
        inner = _mapping(inner, f"{place}.config")
        for name in sorted(outer.keys() & inner.keys()):
            ledger.say(f"{place}.{name}", changed(f"{name} stands there twice; the one in config counts"))
    options = {**outer, **(inner or {})}
    for name in (name for name, given in options.items() if given is None):
        ledger.say(f"{place}.{name}", NOT_GIVEN)
    given = {name: each for name, each in options.items() if each is not None}
    return Component(place, a_text(kind or "", f"{place}.type"), given)


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
    entries = a_list(value, "data_configs")
    named = [each.get("name", number) if isinstance(each, dict) else number for number, each in enumerate(entries)]
    return [(f"data_configs.{name}", each) for name, each in zip(named, entries, strict=True)]


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{value!r} does not fit: a mapping of keys is wanted", where=place)
    return value
