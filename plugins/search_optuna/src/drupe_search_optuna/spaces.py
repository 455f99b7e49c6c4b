"""Spaces: the values in a workflow that a search may choose, and the workflow with chosen values."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from drupe.api import Record, Registry, UsageError

RANGE_KEYS = {"low", "high", "step", "log"}
CHOICES = "choices"
SEARCH = "search"
"""The key of a workflow that holds the search's own settings."""
TOGETHER = "together"
"""The key of a search that holds choices which set several places of the workflow at once."""
OWNERS = {"options": 2, "settings": 3, "passes": 3, "threads": 1, "target": 2}
"""The keys of a workflow below which values are searched, and how many parts a place there has at least."""
EXAMPLES = "options.block_size, settings.quantize-weights.bits, passes.1.quantize-weights.bits, target.precision"
Path = tuple[str | int, ...]
"""A place in a document: keys of mappings and numbers of list entries."""


class Parameter(Record):
    """A value that is searched. It has choices, or a range from `low` to `high` (both included)."""

    path: Path
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False

    @property
    def places(self) -> tuple[Path, ...]:
        """The places that it sets: its own; for choices that set several at once, all that any of them sets."""
        if not self.is_together:
            return (self.path,)
        return tuple(dict.fromkeys(_path(place) for choice in self.choices for place in choice))

    @property
    def is_together(self) -> bool:
        """Whether each choice sets several places: it is a mapping of places, with dots, to values."""
        return self.path[:2] == (SEARCH, TOGETHER)

    def set_in(self, workflow: dict[str, Any], value: Any) -> None:
        """Set its places in a workflow. A place that other choices set, and this one does not, is left out."""
        if not self.is_together:
            _put(workflow, self.path, value)
            return
        for path in self.places:
            _remove(workflow, path)
        for place, each in value.items():
            _put(workflow, _path(place), each)

    @property
    def name(self) -> str:
        """Its place in the workflow, with dots: options.block_size."""
        return ".".join(map(str, self.path))

    @property
    def short(self) -> str:
        """Its last key, for a person."""
        return str(self.path[-1])

    @property
    def is_whole(self) -> bool:
        """Whether its range has whole numbers only."""
        return all(isinstance(each, int) for each in (self.low, self.high, self.step) if each is not None)

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values that show whether it can be set at all: every choice, or the ends of the range."""
        return self.choices or (self.low, self.last)

    @property
    def last(self) -> float:
        """The largest value of its range that the steps reach."""
        return self.high if self.step is None else self._at(int(self.count) - 1)

    def _at(self, place: int) -> float:
        return self.low + place * (self.step or 1)

    @property
    def count(self) -> float:
        """How many values it has; infinity for a range of real numbers without a step."""
        if self.choices:
            return len(self.choices)
        if self.log and self.is_whole:
            return self.high - self.low + 1
        step = self.step or (1 if self.is_whole else 0)
        return math.floor((self.high - self.low) / step + 1e-9) + 1 if step else math.inf

    def values(self) -> tuple[Any, ...]:
        """All values. Raises UsageError for a range of real numbers without a step."""
        if self.choices:
            return self.choices
        if math.isinf(self.count):
            raise UsageError(f"{self.name} has endless values, and a grid takes each of them", cure="give it a step")
        return tuple(map(self._at, range(int(self.count))))

    def drawn(self, chance: random.Random) -> Any:
        """A value at random."""
        if self.choices:
            return chance.choice(self.choices)
        if not math.isinf(self.count):
            return self._at(chance.randrange(int(self.count)))
        if self.log:
            return math.exp(chance.uniform(math.log(self.low), math.log(self.high)))
        return chance.uniform(self.low, self.high)

    def __str__(self) -> str:
        if self.choices:
            return f"{self.name}: {', '.join(map(plain, self.choices))}"
        step = f" in steps of {self.step}" if self.step else ""
        return f"{self.name}: {self.low} to {self.high}{step}{', on a logarithmic scale' if self.log else ''}"


def plain(value: Any) -> str:
    """A value as a workflow file has it; numbers with four digits. Of values that go together, each with its key."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return " with ".join(f"{place.split('.')[-1]} {plain(each)}" for place, each in value.items()) or "none"
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are one: true and 1 are not."""
    return type(one) is type(other) and bool(one == other)


def parameters_in(document: Mapping[str, Any], found: Registry) -> list[Parameter]:
    """What is searched: the places of a workflow that have several values, or a range, where one value is wanted.

    Raises UsageError for a range that makes no sense.
    """
    parameters = []
    for path, value, takes_lists in _places(document, found):
        if isinstance(value, dict) and (CHOICES in value or {"low", "high"} <= set(value)):
            parameters.append(_ranged(path, value))
        elif isinstance(value, list) and not takes_lists and value:
            parameters.append(_chosen(path, value))
    together = [
        _together(name, choices) for name, choices in _mapping(_mapping(document.get(SEARCH)).get(TOGETHER)).items()
    ]
    _refuse_twice([*parameters, *together])
    return [*parameters, *together]


def filled(document: Mapping[str, Any], values: Mapping[str, Any], parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The workflow with one value for each parameter, and without the search's settings."""
    made: dict[str, Any] = copy.deepcopy({key: value for key, value in document.items() if key != SEARCH})
    for parameter in parameters:
        parameter.set_in(made, values[parameter.name])
    return made


def _path(place: str) -> Path:
    """A place that is written with dots; numbers are those of list entries."""
    return tuple(int(part) if part.isdecimal() else part for part in place.split("."))


def _put(workflow: dict[str, Any], path: Path, value: Any) -> None:
    """Set a place. Mappings that hold it are made where they are missing. Raises UsageError where it cannot be."""
    owner: Any = workflow
    try:
        for part in path[:-1]:
            owner = owner.setdefault(part, {}) if isinstance(owner, dict) else owner[part]
        owner[path[-1]] = value
    except (LookupError, TypeError):  # a list is shorter, or a value is no mapping
        place = ".".join(map(str, path))
        raise UsageError(f"the workflow has no place '{place}'", where=f"{SEARCH}.{TOGETHER}") from None


def _remove(workflow: dict[str, Any], path: Path) -> None:
    """Remove a place, where it is there."""
    owner: Any = workflow
    with contextlib.suppress(LookupError, TypeError):
        for part in path[:-1]:
            owner = owner[part]
        del owner[path[-1]]


def _places(document: Mapping[str, Any], found: Registry) -> Iterator[tuple[Path, Any, bool]]:
    """Each place that may be searched, its value, and whether a list there is a value of its own."""
    if "threads" in document:
        yield ("threads",), document["threads"], False
    target = document.get("target")
    if isinstance(target, dict) and "precision" in target:
        yield ("target", "precision"), target["precision"], False
    for name, value in _mapping(document.get("options")).items():
        yield ("options", name), value, name in found.options and found.options[name].multiple
    for name, keys in _mapping(document.get("settings")).items():
        for key, value in _mapping(keys).items():
            yield ("settings", name, key), value, _takes_lists(name, key, found)
    steps = document.get("passes")
    for at, step in enumerate(steps if isinstance(steps, list) else ()):
        yield from _places_of_pass(("passes", at), step, found)


def _places_of_pass(path: Path, step: Any, found: Registry) -> Iterator[tuple[Path, Any, bool]]:
    """The keys of a pass's configuration: `{name: ..., config: {...}}`, or `{NAME: {...}}`."""
    step = _mapping(step)
    if "name" in step:
        name, path, config = str(step["name"]), (*path, "config"), step.get("config")
    elif len(step) == 1:
        ((name, config),) = step.items()
        path = (*path, name)
    else:
        return
    for key, value in _mapping(config).items():
        yield (*path, key), value, _takes_lists(name, key, found)


def _takes_lists(name: str, key: str, found: Registry) -> bool:
    """Whether a key of a pass or an evaluator has a list as its value. A key that does not exist is told of later."""
    catalogue = found.evaluators if name in found.evaluators else found.passes
    if name not in catalogue:
        return False
    field = catalogue.find(name).resolve().Config.model_fields.get(key)
    return field is not None and any(word in str(field.annotation) for word in ("list", "tuple", "Sequence", "set["))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _together(name: str, choices: Any) -> Parameter:
    """A parameter whose choices set several places. Raises UsageError where they are not written as such."""
    where = f"{SEARCH}.{TOGETHER}.{name}"
    if not (isinstance(choices, list) and any(choices) and all(isinstance(each, dict) for each in choices)):
        cure = "[{options.method: search, target.precision: int4}, {target.precision: int8}]"
        raise UsageError("choices that set several places are a list of mappings of places", where=where, cure=cure)
    for place in (place for choice in choices for place in choice):
        if _path(place)[0] not in OWNERS or len(_path(place)) < OWNERS[str(_path(place)[0])]:
            raise UsageError(f"'{place}' is no place that can be searched", where=where, cure=EXAMPLES)
    return _chosen((SEARCH, TOGETHER, name), choices)


def _refuse_twice(parameters: Sequence[Parameter]) -> None:
    """Raise UsageError for a place that two parameters set."""
    owners: dict[Path, str] = {}
    for parameter in parameters:
        for path in parameter.places:
            if path in owners:
                place = ".".join(map(str, path))
                raise UsageError(f"{owners[path]} and {parameter.name} both set {place}", where=SEARCH)
            owners[path] = parameter.name


def _chosen(path: Path, values: Sequence[Any]) -> Parameter:
    name = ".".join(map(str, path))
    if not values:
        raise UsageError("there is no value to choose from", where=name, cure="name values, or leave the key out")
    once = [value for at, value in enumerate(values) if not _is_among(value, values[:at])]
    return Parameter(path, choices=tuple(once))


def _is_among(value: Any, others: Sequence[Any]) -> bool:
    return any(is_same(value, other) for other in others)


def _ranged(path: Path, value: Mapping[str, Any]) -> Parameter:
    """A parameter with a range, or with choices in their written-out form."""
    name = ".".join(map(str, path))
    if CHOICES in value:
        if set(value) != {CHOICES} or not isinstance(value[CHOICES], list):
            raise UsageError("choices are a list, and stand alone", where=name, cure="choices: [a, b]")
        return _chosen(path, value[CHOICES])
    if strange := sorted(set(value) - RANGE_KEYS):
        raise UsageError(f"a range has no key '{strange[0]}'", where=name, cure=f"{', '.join(sorted(RANGE_KEYS))}")
    low, high, step, log = value["low"], value["high"], value.get("step"), value.get("log", False)
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in (low, high)) or low >= high:
        raise UsageError(f"a range goes from a number up to a larger one, not from {low!r} to {high!r}", where=name)
    if step is not None and (isinstance(step, bool) or not isinstance(step, int | float) or step <= 0):
        raise UsageError(f"a step is a number above 0, not {step!r}", where=name)
    if step is not None and step > high - low:
        what = f"a step of {step} is larger than the range from {low} to {high}"
        raise UsageError(what, where=name, cure=f"a smaller step, or choices: [{low}, {high}]")
    if not isinstance(log, bool) or (log and (low <= 0 or step is not None)):
        raise UsageError("a logarithmic range starts above 0 and has no step", where=name, cure="leave log or step out")
    return Parameter(path, low=low, high=high, step=step, log=log)
