"""SparseGate: only the largest values of an MLP's gate count, less a limit that follows from all of them (Gemma 3n)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import dims
from drupe_model_builder.parts.split import widened

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


class SparseGate(Record):
    """The gate less the value that a share `sparsity` of normally distributed values lies below; 0 where that is less.

    The value is the mean plus a multiple of the standard deviation.
    """

    sparsity: float

    @property
    def deviations(self) -> float:
        """How many standard deviations the limit lies above the mean."""
        from statistics import NormalDist  # it loads 15 modules, and few models need it

        return NormalDist().inv_cdf(self.sparsity)


def sparse(graph: GraphBuilder, part: SparseGate, x: ir.Value, name: str) -> ir.Value:
    """The gate x [..., width] before its activation. name: the prefix of the nodes.

    Mean and deviation are computed in float32: squares overflow in float16.
    """
    from drupe_onnx import ir

    kind, shape, one = ir.DataType.FLOAT, dims(x), [*dims(x)[:-1], 1]
    x, axis = widened(graph, x, f"{name}/Wide"), graph.integers([-1])
    mean = graph.node("ReduceMean", [x, axis], f"{name}/Mean", one, dtype=kind, keepdims=1)
    centred = graph.node("Sub", [x, mean], f"{name}/Centred", shape, dtype=kind)
    square = graph.node("Mul", [centred, centred], f"{name}/Square", shape, dtype=kind)
    variance = graph.node("ReduceMean", [square, axis], f"{name}/Variance", one, dtype=kind, keepdims=1)
    deviation = graph.node("Sqrt", [variance], f"{name}/Deviation", one, dtype=kind)
    inputs = [deviation, graph.number(part.deviations, kind)]
    limit = graph.node("Mul", inputs, f"{name}/Limit", one, dtype=kind)
    above = graph.node("Sub", [centred, limit], f"{name}/Above", shape, dtype=kind)
    kept = graph.node("Relu", [above], f"{name}/Kept", shape, dtype=kind)
    return kept if graph.dtype == kind else graph.node("Cast", [kept], f"{name}/Narrow", shape, to=graph.dtype)
