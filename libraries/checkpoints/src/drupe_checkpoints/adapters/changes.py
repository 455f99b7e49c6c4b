"""What an adapter does to one weight of its base model, as an expression."""

from __future__ import annotations

import re
from collections.abc import Mapping

from drupe_checkpoints.adapters.configuration import MERGE_ELSEWHERE
from drupe_checkpoints.adapters.expressions import (
    Decomposed,
    Difference,
    Kronecker,
    LowRank,
    ProductOfElements,
)
from drupe_checkpoints.adapters.tensors import AdapterTensors
from drupe_onnx import Affine, Expression, Reshape, Transpose, as_type, ir

Shape = tuple[int, ...]

STORED_BY_INPUTS: Mapping[str, re.Pattern[str]] = {
    "gpt2": re.compile(r"(.*\.)?(c_attn|c_proj|c_fc|q_attn)"),
    "openai-gpt": re.compile(r"(.*\.)?(c_attn|c_proj|c_fc)"),
}
"""By the kind of model, its modules whose matrices are stored as [inputs, outputs] (transformers' Conv1D)."""
OF_CONVOLUTIONS = frozenset({"hada_t1", "hada_t2", "lokr_t2"})
VECTORS = frozenset({"lora_magnitude_vector", "lora_B.bias"})
"""The parts that are no matrices."""


def is_by_inputs(module: str, model_type: str) -> bool:
    """Whether the matrix of a module is stored as [inputs, outputs]."""
    return (pattern := STORED_BY_INPUTS.get(model_type)) is not None and bool(pattern.fullmatch(module))


def change_of(adapter: AdapterTensors, module: str, base: Expression, *, by_inputs: bool) -> Expression:
    """What is added to the weight `base` of a module. Raises ModelError where the adapter's shapes do not fit it.

    by_inputs: whether that is [inputs, outputs].
    """
    parts = adapter.changes[module]
    _refuse_other_than_matrices(adapter, module, parts, base.shape)
    _refuse_other_rank(adapter, module, parts)
    scale = adapter.scale_of(module)
    if adapter.config.method == "LOHA":
        one = LowRank(parts["hada_w1_a"], parts["hada_w1_b"])
        change: Expression = ProductOfElements(one, LowRank(parts["hada_w2_a"], parts["hada_w2_b"]), scale)
    elif adapter.config.method == "LOKR":
        change = Kronecker(_factor(parts, "lokr_w1"), _factor(parts, "lokr_w2"), scale)
    elif "lora_embedding_A" in parts:
        by_inputs = True
        change = LowRank(Transpose(parts["lora_embedding_A"]), Transpose(parts["lora_embedding_B"]), scale)
    elif by_inputs:
        change = LowRank(Transpose(parts["lora_A"]), Transpose(parts["lora_B"]), scale)
    else:
        change = LowRank(parts["lora_B"], parts["lora_A"], scale)
    _refuse_misfit(adapter, module, change, base.shape)
    magnitude = parts.get("lora_magnitude_vector")
    if magnitude is None:
        return change
    axis = 1 if by_inputs else 0
    if magnitude.size != base.shape[axis]:
        raise adapter.error(
            f"the adapter's lora_magnitude_vector of {module} has {magnitude.size} values for a weight of "
            f"{list(base.shape)}",
            other_base(adapter),
        )
    lengths = Reshape(magnitude, (magnitude.size,))
    return Difference(Decomposed(base, change, lengths, by_column=by_inputs), base)


def refuse_misfit(adapter: AdapterTensors, module: str, base: Shape, *, transposed: bool) -> None:
    """Raise ModelError where the two matrices of LoRA do not fit a matrix of this shape.

    transposed: whether that is [inputs, outputs].
    """
    parts = adapter.changes[module]
    _refuse_other_than_matrices(adapter, module, parts, base)
    _refuse_other_rank(adapter, module, parts)
    first, second = parts["lora_A"], parts["lora_B"]
    change = LowRank(Transpose(first), Transpose(second)) if transposed else LowRank(second, first)
    _refuse_misfit(adapter, module, change, base)


def bias_change(adapter: AdapterTensors, module: str, base: Shape) -> Expression:
    """What the bias of a module's second matrix adds to the module's own bias. Raises ModelError for another shape."""
    bias = adapter.changes[module]["lora_B.bias"]
    if bias.shape != base:
        raise adapter.error(
            f"the adapter is for another base model: its lora_B.bias of {module} has the shape {list(bias.shape)}, and "
            f"the model's bias has {list(base)}",
            other_base(adapter),
        )
    return Affine(as_type(bias, ir.DataType.FLOAT), adapter.scale_of(module))


def _factor(parts: Mapping[str, Expression], name: str) -> Expression:
    """A factor of LoKr, which may itself be a product of two matrices."""
    return parts[name] if name in parts else LowRank(parts[f"{name}_a"], parts[f"{name}_b"])


def _refuse_other_than_matrices(
    adapter: AdapterTensors, module: str, parts: Mapping[str, Expression], base: Shape
) -> None:
    if OF_CONVOLUTIONS & parts.keys() or len(base) != 2:
        raise adapter.error(
            f"the adapter changes {module}, whose weight is no matrix: its shape is {list(base)}", MERGE_ELSEWHERE
        )
    for name, part in parts.items():
        if name not in VECTORS and len(part.shape) != 2:
            raise adapter.error(
                f"the adapter's {name} of {module} is no matrix: its shape is {list(part.shape)}", other_base(adapter)
            )


def _refuse_other_rank(adapter: AdapterTensors, module: str, parts: Mapping[str, Expression]) -> None:
    """Raise ModelError where the file says another rank than the matrices have: the scaling depends on it."""
    first = next((parts[name] for name in ("lora_A", "lora_embedding_A", "hada_w1_b") if name in parts), None)
    stated = adapter.rank_of(module)
    if first is not None and first.shape[0] != stated:
        raise adapter.error(
            f"adapter_config.json gives {module} the rank {stated}, but the adapter's matrices have rank "
            f"{first.shape[0]}",
            "use the adapter_config.json and adapter_model.safetensors of one and the same adapter",
        )


def _refuse_misfit(adapter: AdapterTensors, module: str, change: Expression, base: Shape) -> None:
    pairs = [each for each in (change, *change.inputs) if isinstance(each, LowRank)]
    inner = next((each for each in pairs if each.left.shape[1] != each.right.shape[0]), None)
    if inner is not None:
        raise adapter.error(
            f"the adapter's matrices of {module} do not fit each other: {list(inner.left.shape)} and "
            f"{list(inner.right.shape)}",
            "save or download the adapter again",
        )
    if change.shape != base:
        raise adapter.error(
            f"the adapter is for another base model: it changes {module} as a matrix of {list(change.shape)}, and the "
            f"model's is {list(base)}",
            other_base(adapter),
        )


def other_base(adapter: AdapterTensors) -> str:
    named = adapter.config.base
    return f"use the base model that it was trained for{f': {named}' if named else ''}"
