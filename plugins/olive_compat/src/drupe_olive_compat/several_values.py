"""Several values of one option, which a search tries: where they stand in a file, and in Drupe's workflow."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from drupe.api import Record, registry, replace
from drupe_olive_compat.answers import KEPT, MISSING, Answer, Ledger, changed, kept, left_out
from drupe_olive_compat.chain import HARMLESS
from drupe_olive_compat.components import Component
from drupe_olive_compat.options import SEARCHABLE
from drupe_olive_compat.passes import NESTED

LISTS = frozenset(
    (
        "components", "components_to_export", "exclude_modules", "execution_mode_list", "force_fp32_nodes",
        "force_fp32_ops", "inside_layer_modules", "int4_nodes_to_exclude", "int4_op_types_to_quantize",
        "inter_thread_num_list", "intra_thread_num_list", "keep_io_types", "layers_pattern",
        "layers_to_transform", "modules_to_not_convert", "modules_to_save", "node_block_list",
        "node_include_list", "nodes_to_exclude", "nodes_to_include", "nodes_to_quantize", "op_block_list",
        "op_include_list", "op_types_to_exclude", "op_types_to_quantize", "opt_level_list", "outside_layer_modules",
        "providers_list", "surgeries", "target_modules", "test_metrics",
    )
)  # fmt: skip
"""Options of which a list is one value."""
SEARCHABLE_VALUES: Mapping[str, tuple[Any, ...]] = {
    "accuracy_level": (0, 1, 2, 3, 4),
    "bits": (4, 2, 8),
    "damp_percent": (0.01, 0.001, 0.1),
    "group_size": (128, -1, 16, 32, 64),
    "high_bits": (8, 16),
    "int4_accuracy_level": (1, 2, 3, 4),
    "int4_algo_config": ("default", "rtn", "k_quant_mixed", "k_quant_last"),
    "int4_block_size": (32, 16, 64, 128, 256),
    "r": (64, 16, 32),
    "ratio": (0.5, 0.8, 0.9, 0.95),
    "rotate_mode": ("hadamard", "random"),
}
"""The values that Olive's passes list for an option; its default, where it is one of them, is the first."""
OPEN = ("accuracy_level",)
"""Keys of settings for which null means the same as no key: the target decides."""
A_FILE_FOR_EACH = "a file for each value, and drupe benchmark to compare the packages"
Path = tuple[str, ...]
"""A place in a workflow of Drupe."""
Leaves = Mapping[Path, Any]
_ABSENT = object()


class Several(Record):
    """An option with several values. number: of its pass in the file. keys: of the option, and of what holds it."""

    number: int
    keys: tuple[str, ...]
    values: tuple[Any, ...]
    place: str


class Made(Record):
    """What passes with one value everywhere become: the leaves of a workflow, and the answers."""

    leaves: Leaves
    ledger: Ledger

    @property
    def lacks(self) -> set[str]:
        return {f"{each.about}: {each.what}" for each in self.ledger.notices if each.handling == MISSING}

    def said_at(self, place: str) -> str:
        """Why a value is not as it is in the file; "" where it is kept."""
        return next((each.what for each in self.ledger.notices if each.about == place and each.handling != KEPT), "")


MadeOf = Callable[[Sequence[Component]], Made]
"""What passes with one value for each option become."""


@dataclasses.dataclass
class Space:
    """What is searched: by place in the workflow, the values there; the passes with the first of them.

    together: by a name, values that each set several places at once; one that lacks a place leaves it out.
    said: an answer for each option that has several values. more: leaves that only some of the values need. placed:
    the options that are searched, with their values in the file.
    """

    parts: Sequence[Component]
    values: dict[Path, list[Any]] = dataclasses.field(default_factory=dict)
    together: dict[str, list[Leaves]] = dataclasses.field(default_factory=dict)
    more: dict[Path, Any] = dataclasses.field(default_factory=dict)
    said: list[tuple[str, Answer]] = dataclasses.field(default_factory=list)
    placed: list[tuple[Several, list[Any]]] = dataclasses.field(default_factory=list)

    @property
    def combinations(self) -> int:
        return math.prod(map(len, (*self.values.values(), *self.together.values())))

    @property
    def searches(self) -> bool:
        return bool(self.values or self.together)

    @property
    def places(self) -> set[Path]:
        """All places that are searched."""
        return {*self.values, *(path for each in self.together.values() for leaves in each for path in leaves)}

    def together_forms(self) -> dict[str, list[dict[str, Any]]]:
        """The values that set several places, as the key `together` of a search has them."""
        return {
            name: [{".".join(path): value for path, value in leaves.items()} for leaves in each]
            for name, each in self.together.items()
        }


def several_in(number: int, part: Component, searches: bool) -> Iterator[Several]:
    """The options of a pass that have several values.

    searches: whether the file has a search, for which SEARCHABLE_VALUES is a word.
    """
    for keys, value in _options(part.options):
        option = keys[-1]
        if searches and value == SEARCHABLE:
            value = list(SEARCHABLE_VALUES.get(option, ()))
        if option not in LISTS and isinstance(value, list) and value:
            yield Several(number, keys, tuple(value), ".".join((part.place, *keys)))


def _options(options: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The keys and the value of each option, also of those inside of others."""
    for name, value in options.items():
        if isinstance(value, Mapping) and name in NESTED:
            yield from (((name, str(inner)), each) for inner, each in value.items())
        else:
            yield (name,), value


def with_value(parts: Sequence[Component], several: Several, value: Any) -> list[Component]:
    """The passes with one value of an option."""
    part = parts[several.number]
    outer, *inner = several.keys
    held = {**part.options[outer], inner[0]: value} if inner else value
    changed_part = replace(part, options={**part.options, outer: held})
    return [changed_part if at == several.number else each for at, each in enumerate(parts)]


def space_of(parts: Sequence[Component], found: Sequence[Several], made_of: MadeOf) -> Space:
    """Which values can be searched, and where."""
    possible: list[tuple[Several, list[Any], list[str]]] = []
    for several in found:
        parts = with_value(parts, several, several.values[0])
    for several in found:
        values, dropped = _possible(parts, several, made_of)
        parts = with_value(parts, several, values[0])
        possible.append((several, values, dropped))
    space = Space(parts)
    for several, values, dropped in possible:
        _place(space, several, values, dropped, made_of)
    return space


def _possible(parts: Sequence[Component], several: Several, made_of: MadeOf) -> tuple[list[Any], list[str]]:
    """The values with which nothing is missing that is there with another one; why others are not."""
    made = [(value, made_of(with_value(parts, several, value))) for value in several.values]
    always = set.intersection(*(each.lacks for _, each in made))
    good = [value for value, each in made if each.lacks == always] or [several.values[0]]
    return good, [
        f"{shown(value)} ({each.said_at(several.place) or 'it is not made'})"
        for value, each in made
        if not any(value is kept_value for kept_value in good)
    ]


def _place(space: Space, several: Several, values: list[Any], dropped: list[str], made_of: MadeOf) -> None:
    """Take the values of an option into the space: those that change one place, or all that change several at once."""
    if _placed_together(space, several, values, dropped, made_of):
        return
    made = [(value, made_of(with_value(space.parts, several, value))) for value in values]
    path: Path | None = None
    while made and path is None:
        (first, base), *others = made
        alone = (next(iter(changes)) for _, each in others if len(changes := _changes(base, each)) == 1)
        path = next((each for each in alone if each not in space.values), None)
        if path is None or _leaf(base, path) is not _ABSENT:
            break
        dropped.append(f"{shown(first)} ({base.said_at(several.place) or 'it has no value of its own in a workflow'})")
        made, path = others, None
    if path is None:
        space.said.append((several.place, _not_searched(made, dropped)))
        return
    first, base = made[0]
    space.parts = with_value(space.parts, several, first)
    raw, taken, more = [first], [_leaf(base, path)], dict[Path, Any]()
    for value, each in made[1:]:
        leaf = _leaf(each, path)
        if changes := _changes(base, each) - {path}:
            dropped.append(f"{shown(value)} (it changes {_named(changes | {path})} together)")
        elif leaf is _ABSENT:
            dropped.append(
                f"{shown(value)} ({each.said_at(several.place) or 'it has no value of its own in a workflow'})"
            )
        elif _depends(space, several, (first, value), path, made_of):
            dropped.append(f"{shown(value)} (what it changes depends on another option that is searched)")
        elif not any(_is_same(leaf, other) for other in taken):
            raw.append(value)
            taken.append(leaf)
            more |= {name: its for name, its in each.leaves.items() if name not in base.leaves}
    if len(taken) == 1:
        space.said.append((several.place, left_out(_with(f"{shown(first)} alone counts", dropped))))
        return
    space.values[path] = taken
    space.more |= more
    space.placed.append((several, raw))
    told = f"searched as {'.'.join(path)}: {', '.join(map(shown, taken))}"
    space.said.append((several.place, changed(_with(told, dropped)) if dropped else kept(told)))


def _placed_together(
    space: Space, several: Several, values: list[Any], dropped: Sequence[str], made_of: MadeOf
) -> bool:
    """Take values into the space that change several places at once; False where they do not, or cannot be taken.

    They cannot where another option is searched that changes one of the places, or decides what stands there.
    """
    made = [made_of(with_value(space.parts, several, value)) for value in values]
    changes = set[Path]().union(*(_changes(made[0], each) for each in made))
    if len(changes) < 2 or changes & space.places:
        return False
    alone = [_at(each, changes) for each in made]
    for other, its_values in space.placed:
        for its_value in its_values:
            parts = with_value(space.parts, other, its_value)
            both = [made_of(with_value(parts, several, value)) for value in values]
            if set[Path]().union(*(_changes(both[0], each) for each in both)) != changes:
                return False
            if [_at(each, changes) for each in both] != alone:
                return False
    name = several.keys[-1]
    space.together[name if name not in space.together else several.place.replace(".", "-")] = alone
    space.placed.append((several, values))
    told = f"searched as {_named(changes)} together: {', '.join(map(shown, values))}"
    space.said.append((several.place, changed(_with(told, dropped)) if dropped else kept(told)))
    return True


def _at(made: Made, places: set[Path]) -> Leaves:
    """The values at some places, where there are any."""
    return {path: made.leaves[path] for path in sorted(places) if path in made.leaves}


def _depends(space: Space, several: Several, values: tuple[Any, Any], path: Path, made_of: MadeOf) -> bool:
    """Whether two values differ elsewhere, or otherwise, with a value of another option that is searched."""
    alone = [made_of(with_value(space.parts, several, value)) for value in values]
    for other, its_values in space.placed:
        for its_value in its_values:
            parts = with_value(space.parts, other, its_value)
            both = [made_of(with_value(parts, several, value)) for value in values]
            if _changes(*both) != {path} or any(
                not _is_same(_leaf(one, path), _leaf(two, path)) for one, two in zip(alone, both, strict=True)
            ):
                return True
    return False


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same; true and 1 are not."""
    return type(one) is type(other) and bool(one == other)


def _not_searched(made: Sequence[tuple[Any, Made]], dropped: Sequence[str]) -> Answer:
    """The answer where the first value counts, because no other one changes one place of the workflow alone."""
    (first, base), *others = made
    if not others:
        return left_out(_with(f"{shown(first)} alone counts", dropped))
    rest = f"{shown(first)} counts, and {', '.join(shown(value) for value, _ in others)} not"
    changes = set[Path]().union(*(_changes(base, each) for _, each in others))
    if not changes:
        return left_out(_with(f"{rest}: there is no difference here", dropped))
    together = " together" if len(changes) > 1 else ", as another option does that is searched"
    return left_out(_with(f"{rest}: another value changes {_named(changes)}{together}", dropped), A_FILE_FOR_EACH)


def shown(value: Any) -> str:
    """A value as it stands in a file."""
    return json.dumps(value, default=str)


def _named(paths: set[Path]) -> str:
    return " and ".join(sorted(".".join(path) for path in paths))


def _with(told: str, dropped: Sequence[str]) -> str:
    return f"{told}; not searched: {', '.join(dropped)}" if dropped else told


def _changes(one: Made, other: Made) -> set[Path]:
    """The places where two workflows differ, without those of options that a precision takes without effect."""
    return {
        path
        for path in one.leaves.keys() | other.leaves.keys()
        if _leaf(one, path) != _leaf(other, path) and not (_is_harmless(one, path) or _is_harmless(other, path))
    }


def _is_harmless(made: Made, path: Path) -> bool:
    """Whether an option that a workflow does not have may stand there as well, without effect."""
    owner, name = path[0], path[-1]
    return owner == "options" and path not in made.leaves and name in HARMLESS.get(made.leaves[PRECISION], ())


def _leaf(made: Made, path: Path) -> Any:
    """The value at a place. Some places have one that says the same as none."""
    if path in made.leaves:
        return made.leaves[path]
    if path[0] == "settings" and path[-1] in OPEN:
        return None
    if path[0] == "options" and registry().options[path[-1]].multiple:
        return []
    return _ABSENT


PRECISION: Path = ("target", "precision")


def leaves_of(precision: str, options: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> Leaves:
    """A workflow's target, options and settings by their places."""
    return {
        PRECISION: precision,
        **{("options", name): value for name, value in options.items()},
        **{("settings", owner, key): value for owner, keys in settings.items() for key, value in keys.items()},
    }


def filled(space: Space, leaves: Leaves) -> dict[str, Any]:
    """The target's precision, options and settings of a workflow with all values of a space."""
    workflow: dict[str, Any] = {"target": {}}
    for path, value in {**space.more, **leaves, **space.values}.items():
        owner = workflow
        for key in path[:-1]:
            owner = owner.setdefault(key, {})
        owner[path[-1]] = _as_values(value) if path in space.values else value
    return workflow


def _as_values(values: list[Any]) -> Any:
    """Values as a workflow has them: lists among them are told from the list of all."""
    return {"choices": values} if any(isinstance(each, list) for each in values) else values
