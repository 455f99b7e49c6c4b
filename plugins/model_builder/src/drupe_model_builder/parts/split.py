"""Other shapes and types of a value: parts of its last axis, heads, float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from drupe_model_builder.dimensions import Dims, dims

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


def split(graph: GraphBuilder, x: ir.Value, sizes: Sequence[int], name: str, axis: int = -1) -> Sequence[ir.Value]:
    """The parts of an axis of x, of these sizes. name: the prefix of the node."""
    before, after = dims(x)[:axis], dims(x)[axis:][1:]
    kinds: list[tuple[ir.DataType, Dims] | None] = [(graph.dtype, [*before, size, *after]) for size in sizes]
    return graph.nodes("Split", [x, graph.integers(list(sizes))], f"{name}/Split", kinds, axis=axis)


def heads(graph: GraphBuilder, x: ir.Value, count: int, name: str) -> ir.Value:
    """x [batch, sequence, features] as [batch, sequence, count, features / count]."""
    batch, sequence, features = dims(x)
    assert isinstance(features, int)
    shape = [batch, sequence, count, features // count]
    return graph.node("Reshape", [x, graph.integers([0, 0, count, features // count])], f"{name}/Heads", shape)


def joined(graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    """x [batch, sequence, heads, size] as [batch, sequence, heads * size]."""
    batch, sequence, count, size = dims(x)
    assert isinstance(count, int) and isinstance(size, int)
    shape = [batch, sequence, count * size]
    return graph.node("Reshape", [x, graph.integers([0, 0, count * size])], f"{name}/Joined", shape)


def widened(graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    """x in float32, which some operators want for values that decide how long a state lasts."""
    from drupe_onnx import ir

    wide = ir.DataType.FLOAT
    return x if x.dtype == wide else graph.node("Cast", [x], name, dims(x), dtype=wide, to=wide)
