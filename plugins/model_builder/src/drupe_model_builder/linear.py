"""A linear layer: MatMul with the checkpoint's matrix, and its bias where it has one."""

from __future__ import annotations

from collections.abc import Sequence

from drupe_model_builder.graph import Dims, GraphBuilder
from drupe_onnx import Concat, Expression, as_type, ir


def linear(
    graph: GraphBuilder, x: ir.Value, names: Sequence[str], packed_name: str, shape: Dims, *, role: str, bias: bool
) -> ir.Value:
    """x times the matrices called `names`, concatenated along the output into one matrix called `packed_name`.

    x is [batch, sequence, K], each matrix is [N, K] in the checkpoint, and the result has `shape`.
    """
    weight = graph.matrix(f"{packed_name}.weight", _packed(graph, names, "weight"), transposed=True)
    out = graph.node("MatMul", [x, graph.computable(weight)], f"{packed_name}/MatMul", shape, role=role)
    if bias:
        vector = graph.vector(f"{packed_name}.bias", _packed(graph, names, "bias"))
        out = graph.node("Add", [out, vector], f"{packed_name}/Add", shape)
    return out


def _packed(graph: GraphBuilder, names: Sequence[str], kind: str) -> Expression:
    parts = [graph.weights[f"{name}.{kind}"] for name in names]
    if len(parts) == 1:
        return parts[0]
    if len({part.dtype for part in parts}) > 1:
        # The checkpoint has mixed types: float32 represents all of them.
        parts = [as_type(part, ir.DataType.FLOAT) for part in parts]
    return Concat(tuple(parts))
