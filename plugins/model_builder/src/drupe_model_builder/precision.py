"""Element types of a graph: the type that it computes in, and the type that its matrices are stored in."""

from __future__ import annotations

from dataclasses import dataclass

from drupe.api import ModelError, Target, UsageError
from drupe_onnx import capabilities_of, ir

FLOATS = {"float32": ir.DataType.FLOAT, "float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
READABLE = (*FLOATS.values(), ir.DataType.DOUBLE)


@dataclass(frozen=True)
class Precision:
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
    """The precision for a target. Raises UsageError for activations that the target does not support."""
    served = capabilities_of(target).activations
    if not served:
        raise ModelError(f"the provider '{target.provider}' supports no floating-point type")
    if activations is not None and activations not in served:
        raise UsageError(
            f"the provider '{target.provider}' does not compute in {activations}",
            cure=f"set activations to {' or '.join(served)}, in the provider's recipe or with --set",
        )
    return Precision(FLOATS[activations or served[0]], FLOATS[weights] if weights else None)
