"""Element types of a graph: the type that it computes in, and the type that its matrices are stored in."""

from __future__ import annotations

from drupe.api import Record, Target
from drupe_onnx import ir
from drupe_onnx.activation_types import refuse_unserved, served_activations

FLOATS = {"float32": ir.DataType.FLOAT, "float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
READABLE = (*FLOATS.values(), ir.DataType.DOUBLE)


class Precision(Record):
    """activations: the type of values and vectors (norms, biases).

    weights: the type that matrices are stored in; None for the checkpoint's own.
    """

    activations: ir.DataType
    weights: ir.DataType | None

    def stored(self, dtype: ir.DataType) -> ir.DataType:
        """The type that a matrix of the checkpoint is stored in. float64 becomes float32."""
        if self.weights is not None:
            return self.weights
        return ir.DataType.FLOAT if dtype == ir.DataType.DOUBLE else dtype


def choose(weights: str | None, activations: str | None, target: Target) -> Precision:
    """The precision for a target. Raises an error for activations that the target does not support."""
    chosen = activations or served_activations(target)[0]
    refuse_unserved(chosen, target)
    return Precision(FLOATS[chosen], FLOATS[weights] if weights else None)
