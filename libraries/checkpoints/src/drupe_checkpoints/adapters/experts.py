"""Experts in adapters and checkpoints: each may have one tensor for all experts, or matrices for each of them.

peft changes a tensor of all experts, [experts, outputs, inputs], by two matrices (`target_parameters`): A [experts *
rank, inputs] holds the experts one after the other, B [outputs, rank * experts] has the experts' columns in turn. An
adapter of transformers 4 has two matrices for each matrix of each expert. Here both become the latter, and so does the
checkpoint while adapters are merged into it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from drupe.api import Record, counted, field, replace
from drupe_checkpoints.adapters.changes import other_base
from drupe_checkpoints.adapters.configuration import CONFIG, MERGE_ELSEWHERE, PARAMETERS
from drupe_checkpoints.adapters.places import Places
from drupe_checkpoints.adapters.tensors import AdapterTensors
from drupe_checkpoints.wording import listed
from drupe_onnx import Access, Concat, Expression, Files, RowRange, Transpose, as_type, ir, member
from drupe_onnx.expressions.expression import Shape

GATE, UP, DOWN, GATE_UP = "gate_proj", "up_proj", "down_proj", "gate_up_proj"
EXPERTS, BIAS = "experts", "_bias"
LETTERS = {"w1": GATE, "w3": UP, "w2": DOWN}
"""Names of an expert's matrices in Mixtral and its relatives, with those of most other families."""
STACKS: Mapping[str, str] = {
    f"{EXPERTS}.{GATE_UP}": GATE_UP,
    f"{EXPERTS}.{UP}": UP,
    f"{EXPERTS}.{DOWN}": DOWN,
    "input_linear.weight": GATE_UP,
    "output_linear.weight": DOWN,
}
"""Ends of names of tensors that hold a matrix for each expert."""
PARAMETERS_OF: Mapping[str, tuple[str, ...]] = {
    EXPERTS: (GATE_UP, UP, GATE_UP + BIAS, DOWN, DOWN + BIAS),
    "input_linear": ("weight",),
    "output_linear": ("weight",),
}
"""The parameters of modules with all experts, in the order in which transformers' classes have them."""
ROLES: Mapping[str, str] = {"input_linear": GATE_UP, "output_linear": DOWN}
WRAPPED = ".base_layer"
OTHER_WAY_ROUND = ("llama4", "llama4_text")
"""Kinds of models whose experts are [experts, inputs, outputs], which peft takes for [experts, outputs, inputs]."""
_OF_ONE = re.compile(rf"(?P<at>(?:.*\.)?{EXPERTS})\.(?P<number>\d+)\.(?P<leaf>{'|'.join([GATE, UP, DOWN, *LETTERS])})")


class Matrices(Expression):
    """Matrices of one shape and type as one tensor, [experts, rows, columns]."""

    experts: tuple[Expression, ...]

    @property
    def shape(self) -> Shape:
        return (len(self.experts), *self.experts[0].shape)

    @property
    def dtype(self) -> ir.DataType:
        return self.experts[0].dtype

    @property
    def access(self) -> Access:
        return Access.ROWS

    def member(self, index: int) -> Expression:
        """The matrix of one expert; see `drupe_onnx.member`."""
        return self.experts[index]

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        out = files.empty((stop - start, *self.shape[1:]), self.dtype.numpy())
        for at in range(start, stop):
            with files.passing():
                out[at - start] = self.experts[at].value(files)
        return out

    def working_bytes(self, rows: int) -> int:
        return self.held_bytes(rows) + max(each.working_bytes(each.row_count) for each in self.experts)


class ColumnsOfExpert(Expression):
    """The columns of one expert, [N, rank], in a matrix [N, rank * experts] that has them in turn."""

    source: Expression
    count: int
    index: int

    @property
    def shape(self) -> Shape:
        return (self.source.shape[0], self.source.shape[1] // self.count)

    @property
    def dtype(self) -> ir.DataType:
        return self.source.dtype

    @property
    def access(self) -> Access:
        return Access.ROWS

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return _by_expert(self.source, self.count, files)[self.index, start:stop]

    def working_bytes(self, rows: int) -> int:
        return self.held_bytes(rows)  # what is kept for all experts is not held for these rows


_KEPT = 2
_HELD: WeakKeyDictionary[Files, dict[tuple[Expression, int], NDArray[Any]]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def _by_expert(matrix: Expression, count: int, files: Files) -> NDArray[Any]:
    """A matrix [N, rank * experts] as [experts, N, rank]. The last ones are kept: all experts read the same one."""
    with _LOCK:
        kept = _HELD.setdefault(files, {})
        found = kept.pop((matrix, count), None)
        if found is None:
            with files.passing():
                whole = matrix.value(files).reshape(matrix.shape[0], -1, count)
                found = np.ascontiguousarray(whole.transpose(2, 0, 1))
        kept[matrix, count] = found
        while len(kept) > _KEPT:
            kept.pop(next(iter(kept)))
        return found


class Group(Record):
    """The experts of one layer. at: the beginning of their names. leaves: the names of an expert's matrices, by role.

    shapes: of those matrices, [outputs, inputs], by role. by_inputs: whether they are stored as [inputs, outputs]; then
    gate and up are one matrix, GATE_UP.
    """

    at: str
    count: int
    leaves: Mapping[str, str]
    shapes: Mapping[str, tuple[int, int]]
    by_inputs: bool = False

    def module(self, number: int, role: str) -> str:
        return f"{self.at}.{number}.{self.leaves[role]}"

    def roles_of(self, parameter: str) -> tuple[str, ...]:
        """The matrices that a parameter of all experts consists of, from the top down; none that the group lacks."""
        if parameter in self.shapes:
            return (parameter,)
        return (GATE, UP) if parameter == GATE_UP and GATE in self.shapes else ()


class TakenApart(Record):
    """A checkpoint's tensors with a matrix for each expert. stacks: the names of the matrices that make up each tensor
    of all experts, expert by expert, by that tensor's name. by_inputs: matrices that are stored as [inputs, outputs].
    """

    tensors: Mapping[str, Expression]
    groups: Mapping[str, Group]
    stacks: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    by_inputs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, tensors: Mapping[str, Expression]) -> TakenApart:
        stacked: dict[str, dict[str, str]] = {}
        for name, tensor in tensors.items():
            end = next((each for each in STACKS if name == each or name.endswith(f".{each}")), None)
            if end is not None and len(tensor.shape) == 3:
                stacked.setdefault(name.removesuffix(end) + EXPERTS, {})[STACKS[end]] = name
        groups = dict(_of_single_matrices(tensors))
        held, stacks = dict(tensors), {}
        by_inputs: set[str] = set()
        for at, names in stacked.items():
            group = _group_of(at, {role: tensors[name].shape for role, name in names.items()})
            groups[at] = group
            for role, name in names.items():
                whole, roles = _single(held.pop(name)), group.roles_of(role)
                stacks[name] = tuple(
                    tuple(f"{group.module(number, each)}.weight" for each in roles) for number in range(group.count)
                )
                for number, own in enumerate(stacks[name]):
                    held |= zip(own, _cut(member(whole, number), len(own)), strict=True)
                by_inputs |= {each for own in stacks[name] for each in own} if group.by_inputs else set()
        return cls(held, groups, stacks, frozenset(by_inputs))

    def put_together(self, tensors: dict[str, Expression], original: Mapping[str, Expression]) -> dict[str, Expression]:
        """The tensors with those of all experts as the checkpoint has them. original: the checkpoint's own."""
        found = dict(tensors)
        for name, experts in self.stacks.items():
            parts = [tuple(found.pop(each) for each in own) for own in experts]
            same = all(part is self.tensors[each] for own, made in zip(experts, parts, strict=True)
                       for each, part in zip(own, made, strict=True))  # fmt: skip
            found[name] = original[name] if same else Matrices(tuple(map(_joined, parts)))
        return {name: found[name] for name in (*original, *(each for each in found if each not in original))}

    def as_single(self, adapter: AdapterTensors, model_type: str) -> AdapterTensors:
        """The adapter with two matrices for each matrix of each expert. Raises ModelError where they do not fit."""
        changes: dict[str, dict[str, Expression]] = {}
        known: dict[str, str] = {}
        for module, parts in adapter.changes.items():
            if (found := _OF_ONE.fullmatch(module)) is not None:
                own = self._module_of_one(module, found)
                changes[own], known[own] = parts, module
            elif (told := _stacked_parameter(adapter, module)) is not None:
                key = ".".join(told)
                for own, mine in self._of_all(adapter, *told, parts, model_type).items():
                    changes[own], known[own] = mine, key
            else:
                changes[module] = parts
        biases = frozenset(own for own in known if own == known[own] and own.endswith(BIAS))
        return replace(adapter, changes=changes, keys=known, parameters=biases)

    def _module_of_one(self, module: str, found: re.Match[str]) -> str:
        """The checkpoint's name of one matrix of one expert; the adapter's own where the checkpoint has none."""
        group = self._group(found["at"])
        role = LETTERS.get(found["leaf"], found["leaf"])
        if group is None or role not in group.leaves or int(found["number"]) >= group.count:
            return module
        return group.module(int(found["number"]), role)

    def _group(self, module: str) -> Group | None:
        """The experts that an adapter calls `module`."""
        marks = {f"{at}.mark": () for at in self.groups}
        places = Places(marks)
        places.find({f"{module}.mark": None})
        place = places.names.get(f"{module}.mark")
        return None if place is None else self.groups[place.removesuffix(".mark")]

    def _of_all(
        self, adapter: AdapterTensors, module: str, parameter: str, parts: Mapping[str, Expression], model_type: str
    ) -> dict[str, dict[str, Expression]]:
        """What two matrices for all experts add to each matrix, by its module."""
        key = f"{module}.{parameter}"
        owner = module.rpartition(".")[2]
        role = ROLES.get(owner, parameter)
        if role.endswith(BIAS):
            return {key: dict(parts)}
        group = self._group(module if owner == EXPERTS else module.removesuffix(owner) + EXPERTS)
        roles = () if group is None else group.roles_of(role)
        if group is None or not roles:
            raise adapter.error(
                f"the adapter is for another base model: it changes {key}, which this one does not have",
                other_base(adapter),
            )
        _refuse_other_parts(adapter, key, parts, group)
        outputs, inputs = sum(group.shapes[each][0] for each in roles), group.shapes[roles[0]][1]
        first, second = parts["lora_A"], parts["lora_B"]
        given = (second.shape[0], first.shape[1])
        turned = given == (inputs, outputs) and (inputs != outputs or model_type in OTHER_WAY_ROUND)
        if given != (outputs, inputs) and not turned:
            raise adapter.error(
                f"the adapter is for another base model: it changes {key} by matrices of {list(given)} for each "
                f"expert, and the model's are {[outputs, inputs]}",
                other_base(adapter),
            )
        rank = first.shape[0] // group.count
        found: dict[str, dict[str, Expression]] = {}
        for number in range(group.count):
            inward: Expression = RowRange(first, number * rank, (number + 1) * rank)
            outward: Expression = ColumnsOfExpert(second, group.count, number)
            if turned:
                inward, outward = Transpose(outward), Transpose(inward)
            for each, rows in zip(roles, _cut(outward, len(roles)), strict=True):
                found[group.module(number, each)] = {"lora_A": inward, "lora_B": rows}
        return found


def is_of_all_experts(name: str) -> bool:
    """Whether a parameter, by its name in transformers, holds something of all experts that adapters can change."""
    owner, _, parameter = name.rpartition(".")
    return parameter in PARAMETERS_OF.get(owner.rpartition(".")[2], ())


def changes_experts(adapter: AdapterTensors) -> tuple[str, ...]:
    """The modules of experts that an adapter changes, by its own names; those of all experts once."""
    names = (
        module if _OF_ONE.fullmatch(module) else told[0] if (told := _stacked_parameter(adapter, module)) else None
        for module in adapter.changes
    )
    return tuple(dict.fromkeys(each for each in names if each is not None))


def replaced_experts(adapter: AdapterTensors) -> tuple[str, ...]:
    """Tensors of all experts that an adapter holds whole."""
    return tuple(name for name in adapter.whole if any(name.endswith(f".{each}") for each in STACKS))


def _stacked_parameter(adapter: AdapterTensors, module: str) -> tuple[str, str] | None:
    """The module of all experts, and its parameter, that two matrices change; None where they change none.

    peft's file does not say the parameter: where it changes several of a module, it puts one wrapper around the other,
    in the order in which the module has them. Raises ModelError where adapter_config.json has others.
    """
    owner = module
    while owner.endswith(WRAPPED):
        owner = owner.removesuffix(WRAPPED)
    of_module = PARAMETERS_OF.get(owner.rpartition(".")[2])
    if of_module is None:
        return None
    targets = adapter.config.config.texts(PARAMETERS)
    wanted = [each for each in of_module if _is_target(f"{owner}.{each}", targets)]
    names = [owner + WRAPPED * depth for depth in range(len(wanted))]
    held = [each for each in adapter.changes if each.removesuffix(WRAPPED * each.count(WRAPPED)) == owner]
    if sorted(held) != sorted(names):
        raise adapter.error(
            f"{CONFIG} gives {owner} {counted(len(wanted), 'parameter')} in {PARAMETERS} "
            f"({listed(wanted) or 'none'}), but the adapter has matrices for {len(held)}",
            "use the adapter_config.json and adapter_model.safetensors of one and the same adapter",
        )
    return owner, wanted[len(wanted) - 1 - names.index(module)]


def _is_target(key: str, targets: Iterable[str]) -> bool:
    return any(key == each or key.endswith(f".{each}") for each in targets)


def _refuse_other_parts(adapter: AdapterTensors, key: str, parts: Mapping[str, Expression], group: Group) -> None:
    if parts.keys() != {"lora_A", "lora_B"}:
        raise adapter.error(
            f"the adapter changes all experts of {key} by {listed(sorted(parts))}, not by two matrices", MERGE_ELSEWHERE
        )
    rank, rows, columns = adapter.config.rank_of(key), parts["lora_A"].shape[0], parts["lora_B"].shape[1]
    if (rows, columns) != (rank * group.count,) * 2:
        raise adapter.error(
            f"{CONFIG} gives {key} the rank {rank}, but the adapter's matrices have {rows} rows and {columns} columns "
            f"for {counted(group.count, 'expert')}",
            "use the adapter_config.json and adapter_model.safetensors of one and the same adapter",
        )


def _of_single_matrices(tensors: Mapping[str, Expression]) -> Iterator[tuple[str, Group]]:
    """The groups of a checkpoint that has matrices for each expert."""
    leaves: dict[str, dict[str, str]] = {}
    shapes: dict[str, dict[str, tuple[int, int]]] = {}
    counts: dict[str, int] = {}
    for name, tensor in tensors.items():
        found = _OF_ONE.fullmatch(name.removesuffix(".weight")) if name.endswith(".weight") else None
        if found is None or len(tensor.shape) != 2:
            continue
        at, role = found["at"], LETTERS.get(found["leaf"], found["leaf"])
        leaves.setdefault(at, {})[role] = found["leaf"]
        shapes.setdefault(at, {})[role] = (tensor.shape[0], tensor.shape[1])
        counts[at] = max(counts.get(at, 0), int(found["number"]) + 1)
    for at, count in counts.items():
        yield at, Group(at, count, leaves[at], shapes[at])


def _group_of(at: str, shapes: Mapping[str, Shape]) -> Group:
    """The group of tensors of all experts. Where gate and up are one, both together tell how they are stored."""
    both, down = shapes.get(GATE_UP), shapes.get(DOWN)
    count = next(iter(shapes.values()))[0]
    if both is not None and down is not None and (both[1], both[2]) == (down[2], 2 * down[1]):
        turned = {GATE_UP: (both[2], both[1]), DOWN: (down[2], down[1])}
        return Group(at, count, {GATE_UP: GATE_UP, DOWN: DOWN}, turned, by_inputs=True)
    found: dict[str, tuple[int, int]] = {}
    for role, (_, outputs, inputs) in shapes.items():
        found |= dict.fromkeys((GATE, UP), (outputs // 2, inputs)) if role == GATE_UP else {role: (outputs, inputs)}
    return Group(at, count, {role: role for role in found}, found)


def _single(tensor: Expression) -> Expression:
    """Double precision is not kept, as for other tensors that adapters change."""
    return as_type(tensor, ir.DataType.FLOAT) if tensor.dtype == ir.DataType.DOUBLE else tensor


def _cut(matrix: Expression, pieces: int) -> list[Expression]:
    """As many equal ranges of rows."""
    size = matrix.shape[0] // pieces
    return [matrix] if pieces == 1 else [RowRange(matrix, at * size, (at + 1) * size) for at in range(pieces)]


def _joined(parts: Sequence[Expression]) -> Expression:
    return parts[0] if len(parts) == 1 else Concat(tuple(parts))
