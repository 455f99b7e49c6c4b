"""Distinct weights: counting the bytes of initializers. Initializers that share one tensor count once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from drupe_onnx import ir
from drupe_onnx.expressions.arranged import Reshape
from drupe_onnx.expressions.expression import Expression
from drupe_onnx.weights import expression_of


def stored_as(expression: Expression | None) -> Expression | None:
    """The part of an expression that decides its bytes; the shape does not."""
    while isinstance(expression, Reshape):
        expression = expression.source
    return expression


def distinct_weights(values: Iterable[ir.Value], seen: set[object] | None = None) -> Iterator[ir.TensorProtocol]:
    """The tensors of initializers, without those whose bytes are an earlier one's.

    seen: the identities of earlier tensors; those of the new tensors are added.
    """
    seen = set() if seen is None else seen
    for value in values:
        tensor = value.const_value
        if tensor is None:
            continue
        identity: object = stored_as(expression_of(value)) or id(tensor)  # strings have no expression
        if identity not in seen:
            seen.add(identity)
            yield tensor


def weight_bytes(values: Iterable[ir.Value]) -> int:
    """The bytes of all initializers together."""
    return sum(tensor.nbytes for tensor in distinct_weights(values))
