"""Merging adapters into a checkpoint's tensors, as peft's `merge_and_unload` does it. No weight is read for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drupe.api import Record, replace
from drupe_checkpoints.adapters.changes import bias_change, change_of, is_by_inputs, other_base
from drupe_checkpoints.adapters.configuration import MERGE_ELSEWHERE
from drupe_checkpoints.adapters.experts import TakenApart, changes_experts, replaced_experts
from drupe_checkpoints.adapters.expressions import Difference, Merged, RowsReplaced
from drupe_checkpoints.adapters.places import Places, named
from drupe_checkpoints.adapters.tensors import AdapterTensors
from drupe_checkpoints.wording import listed
from drupe_onnx import Expression, as_type, ir

HEADS = ("lm_head", "embed_out", "output_layer")
EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
"""What the modules are called that a model with tied weights has one matrix for."""
HEAD_OF: Mapping[str, str] = {"gpt_neox": "embed_out"}
"""The name of the head by the kind of model, where it is not lm_head."""


class Base(Record):
    """What adapters are merged into.

    shared: the matrix that is both embedding and head, by name; None where there is no head, or one of its own.
    by_inputs: tensors that are stored as [inputs, outputs], by name.
    """

    tensors: Mapping[str, Expression]
    model_type: str
    shared: str | None
    by_inputs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, tensors: Mapping[str, Expression], model_type: str, *, has_head: bool) -> Base:
        """has_head: whether the model has a head, in its files or tied to the embedding."""
        tables = named(tensors, EMBEDDINGS)
        tied = has_head and len(tables) == 1 and not named(tensors, HEADS)
        return cls(tensors, model_type, tables[0] if tied else None)

    @property
    def head(self) -> str:
        """What a tied head is called when it gets a matrix of its own."""
        return f"{HEAD_OF.get(self.model_type, HEADS[0])}.weight"

    def tensor(self, name: str) -> Expression:
        """A tensor; that of the embedding for a head that is tied to it. Double precision is not kept."""
        found = self.tensors[name] if name in self.tensors or self.shared is None else self.tensors[self.shared]
        return as_type(found, ir.DataType.FLOAT) if found.dtype == ir.DataType.DOUBLE else found


def merged(base: Base, adapters: Sequence[AdapterTensors]) -> dict[str, Expression]:
    """The tensors with the sum of the adapters' changes, each times its weight.

    Raises ModelError for an adapter that does not fit the tensors, or cannot be merged.
    """
    if not any(changes_experts(adapter) for adapter in adapters):
        return _merged(base, adapters)
    apart = TakenApart.of(base.tensors)
    singles = [apart.as_single(adapter, base.model_type) for adapter in adapters]
    found = _merged(replace(base, tensors=apart.tensors, by_inputs=apart.by_inputs), singles)
    return apart.put_together(found, base.tensors)


def _merged(base: Base, adapters: Sequence[AdapterTensors]) -> dict[str, Expression]:
    """See `merged`; experts have matrices of their own."""
    terms: dict[str, list[tuple[Expression, float]]] = {}
    for adapter in adapters:
        for name, changes in _changes(adapter, base).items():
            terms.setdefault(name, []).extend((change, adapter.reference.weight) for change in changes)
    found = dict(base.tensors)
    if base.shared is not None and any(unties(each) for each in adapters):
        found[base.head] = base.tensor(base.shared)
    return found | {name: _sum(base.tensor(name), changes) for name, changes in terms.items()}


def unties(adapter: AdapterTensors) -> bool:
    """Whether an adapter holds an embedding or a head of its own, so that a tied model has two matrices afterwards."""
    saved = adapter.config.config.texts("modules_to_save")
    if adapter.config.ties_weights or not saved:
        return False
    modules = [name.removesuffix(".weight") for name in adapter.whole if name.endswith(".weight")]
    return any(_last(each) in (*HEADS, *EMBEDDINGS) and each.endswith(saved) for each in modules)


def changes_tied(adapter: AdapterTensors) -> bool:
    """Whether an adapter adds to an embedding or a head."""
    return any(_last(module) in (*HEADS, *EMBEDDINGS) for module in adapter.changes)


def _sum(base: Expression, terms: Sequence[tuple[Expression, float]]) -> Expression:
    """A tensor with its changes. What one adapter replaces is the new tensor itself, not a difference that is added."""
    found, left = base, list(terms)
    while whole := next((each for each in left if _replaces(*each, found)), None):
        found = whole[0].new  # type: ignore[attr-defined]
        left.remove(whole)
    if left:
        found = Merged(found, tuple(change for change, _ in left), tuple(weight for _, weight in left))
    return as_type(found, base.dtype)


def _replaces(change: Expression, weight: float, held: Expression) -> bool:
    return isinstance(change, Difference) and weight == 1 and change.old == held


def _changes(adapter: AdapterTensors, base: Base) -> dict[str, list[Expression]]:
    """What one adapter adds to each tensor, by the checkpoint's names."""
    adapter.refuse_incomplete()
    _refuse_whole_experts(adapter, base)
    places = places_in(base, adapter)
    held: dict[str, Expression] = {}
    found: dict[str, list[Expression]] = {}
    for name, new in adapter.whole.items():
        place = places[name]
        _refuse_misfit(adapter, name, new, base.tensor(place))
        held[place] = new
        found[place] = [Difference(new, base.tensor(place))]
    for module, parts in adapter.changes.items():
        if _is_told_twice(adapter, module, base):
            continue
        place = places[adapter.tensor_of(module)]
        old = held.get(place, base.tensor(place))
        by_inputs = place in base.by_inputs or is_by_inputs(module, base.model_type)
        found.setdefault(place, []).append(change_of(adapter, module, old, by_inputs=by_inputs))
        if "lora_B.bias" in parts:
            bias = places[f"{module}.bias"]
            found.setdefault(bias, []).append(bias_change(adapter, module, base.tensor(bias).shape))
    for module, new in adapter.tokens.items():
        place = places[f"{module}.weight"]
        old = held.get(place, base.tensor(place))
        tokens = adapter.config.token_places(module)
        _refuse_other_tokens(adapter, module, tokens, new, old)
        found.setdefault(place, []).append(Difference(RowsReplaced(old, new, tokens), old))
    return found


def places_in(base: Base, adapter: AdapterTensors) -> dict[str, str]:
    """The checkpoint's names for the tensors that the adapter changes. Raises ModelError where one has none."""
    tied = None if base.shared is None else base.head if unties(adapter) else base.shared
    return places_of(adapter, {name: tuple(each.shape) for name, each in base.tensors.items()}, tied)


def places_of(adapter: AdapterTensors, shapes: Mapping[str, tuple[int, ...]], tied_head: str | None) -> dict[str, str]:
    """The names, among some tensors of a checkpoint, of those that the adapter changes, by the adapter's own.

    tied_head: what stands for a head that is tied to the embedding. Raises ModelError where one has no place.
    """
    wanted: dict[str, tuple[int, ...] | None] = {adapter.tensor_of(module): None for module in adapter.changes}
    wanted |= {f"{module}.bias": None for module, parts in adapter.changes.items() if "lora_B.bias" in parts}
    wanted |= {f"{module}.weight": None for module in adapter.tokens}
    wanted |= {name: tuple(each.shape) for name, each in adapter.whole.items()}
    places = Places(shapes)
    places.find(wanted)
    found, lacking = dict(places.names), []
    for name in wanted:
        if name in found:
            continue
        module, _, kind = name.rpartition(".")
        if kind == "weight" and tied_head is not None and _last(module) in HEADS:
            found[name] = tied_head
        else:
            lacking.append(name)
    if lacking:
        raise adapter.error(
            f"the adapter is for another base model: it changes {listed(lacking)}, which this one does not have",
            other_base(adapter),
        )
    return found


def _refuse_whole_experts(adapter: AdapterTensors, base: Base) -> None:
    """Raise ModelError for an adapter that holds all experts in one tensor where the model has one for each."""
    if lacking := [name for name in replaced_experts(adapter) if name not in base.tensors]:
        raise adapter.error(
            f"the adapter replaces {listed(lacking)} whole, and the experts have matrices of their own here",
            MERGE_ELSEWHERE,
        )


def _is_told_twice(adapter: AdapterTensors, module: str, base: Base) -> bool:
    """Whether an adapter of tied weights repeats for the head what it says of the embedding."""
    tied = adapter.config.ties_weights and base.shared is not None and _last(module) in HEADS
    return tied and any(_last(each) in EMBEDDINGS for each in adapter.changes)


def _last(module: str) -> str:
    return module.rpartition(".")[2]


def _refuse_misfit(adapter: AdapterTensors, name: str, new: Expression, old: Expression) -> None:
    if new.shape != old.shape:
        raise adapter.error(
            f"the adapter is for another base model: its {name} has the shape {list(new.shape)}, and the model's has "
            f"{list(old.shape)}",
            other_base(adapter),
        )


def _refuse_other_tokens(
    adapter: AdapterTensors, module: str, tokens: tuple[int, ...], new: Expression, old: Expression
) -> None:
    if tuple(new.shape) != (len(tokens), *old.shape[1:]) or max(tokens, default=0) >= old.shape[0]:
        raise adapter.error(
            f"the adapter's rows for {len(tokens)} tokens of {module} have the shape {list(new.shape)}, and the "
            f"model's embedding has {list(old.shape)}",
            other_base(adapter),
        )
