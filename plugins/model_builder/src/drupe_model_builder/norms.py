"""RMS norms, alone and together with adding the residual, in operators that the target has."""

from __future__ import annotations

from typing import Any

from drupe_model_builder.graph import Dims, GraphBuilder, dims
from drupe_onnx import MICROSOFT, ir


def rms_norm(graph: GraphBuilder, x: ir.Value, weight: str, epsilon: float) -> ir.Value:
    """x divided by the root of its mean square along the last axis, times the weight of that name."""
    name, shape, gamma = weight.removesuffix(".weight"), dims(x), graph.vector(weight)
    attributes: dict[str, Any] = {"axis": -1, "epsilon": epsilon, "stash_type": 1}
    if graph.serves("SimplifiedLayerNormalization", graph.dtype, graph.dtype, outputs=[graph.dtype], **attributes):
        return graph.node(
            "SimplifiedLayerNormalization", [x, gamma], f"{name}/RMSNorm", shape, role="norm", **attributes
        )
    return _rms_norm_in_pieces(graph, x, gamma, name, shape, epsilon)


def add_and_norm(
    graph: GraphBuilder, x: ir.Value, skip: ir.Value | None, weight: str, epsilon: float
) -> tuple[ir.Value, ir.Value]:
    """The RMS norm of x + skip, and the sum; without skip, the norm of x, and x."""
    if skip is None:
        return rms_norm(graph, x, weight, epsilon), x
    name, shape, dtype = weight.removesuffix(".weight"), dims(x), graph.dtype
    operator = "SkipSimplifiedLayerNormalization"
    if graph.serves(operator, dtype, dtype, dtype, domain=MICROSOFT, outputs=[dtype], epsilon=epsilon):
        normed, _, _, total = graph.nodes(
            operator,
            [x, skip, graph.vector(weight)],
            f"{name}/SkipRMSNorm",
            [(dtype, shape), None, None, (dtype, shape)],
            domain=MICROSOFT,
            role="norm",
            epsilon=epsilon,
        )
        return normed, total
    total = graph.node("Add", [x, skip], f"{name}/Add", shape)
    return rms_norm(graph, total, weight, epsilon), total


def _rms_norm_in_pieces(
    graph: GraphBuilder, x: ir.Value, gamma: ir.Value, name: str, shape: Dims, epsilon: float
) -> ir.Value:
    """The norm for targets without the operator. Squares are float32, because float16 overflows at 256 squared."""
    wide, one = ir.DataType.FLOAT, [*shape[:-1], 1]
    x32 = x if x.dtype == wide else graph.node("Cast", [x], f"{name}/Wide", shape, dtype=wide, to=wide)
    square = graph.node("Mul", [x32, x32], f"{name}/Square", shape, dtype=wide)
    mean = graph.node("ReduceMean", [square, graph.integers([-1])], f"{name}/Mean", one, dtype=wide, keepdims=1)
    safe = graph.node("Add", [mean, graph.number(epsilon, wide)], f"{name}/Epsilon", one, dtype=wide)
    root = graph.node("Sqrt", [safe], f"{name}/Sqrt", one, dtype=wide)
    normed = graph.node("Div", [x32, root], f"{name}/Div", shape, dtype=wide)
    if x.dtype != wide:
        normed = graph.node("Cast", [normed], f"{name}/Narrow", shape, to=graph.dtype)
    return graph.node("Mul", [normed, gamma], f"{name}/Mul", shape, role="norm")
