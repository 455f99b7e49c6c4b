"""Difference: the difference of two halves of the heads of attention, as the Differential Transformer has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import Dims, dims
from drupe_model_builder.parts.norm import Norm, norm
from drupe_model_builder.parts.split import heads, joined

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


class Difference(Record):
    """norm(first half of the heads - share * second half) * factor.

    name: the prefix of the nodes. share: exp(sum(q1 * k1)) - exp(sum(q2 * k2)) + initial; weights: the tensors q1, k1,
    q2 and k2. size: of each of these. norm: of each head.
    """

    name: str
    weights: tuple[str, str, str, str]
    size: int
    initial: float
    norm: Norm
    factor: float

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for name in self.weights:
            yield name, (self.size,)
        yield from self.norm.tensors()


def difference(graph: GraphBuilder, part: Difference, x: ir.Value, count: int) -> ir.Value:
    """x [batch, sequence, count * values] of `count` heads as [batch, sequence, count / 2 * values]."""
    apart = heads(graph, x, count, part.name)
    batch, sequence, _, size = dims(apart)
    half: Dims = [batch, sequence, count // 2, size]
    first, second = graph.nodes(
        "Split", [apart, graph.integers([count // 2] * 2)], f"{part.name}/Split", [(graph.dtype, half)] * 2, axis=2
    )
    less = graph.node("Mul", [second, _share(graph, part)], f"{part.name}/Mul", half)
    left = norm(graph, part.norm, graph.node("Sub", [first, less], f"{part.name}/Sub", half))
    return joined(graph, graph.node("Mul", [left, graph.number(part.factor)], f"{part.name}/Scale", half), part.name)


def _share(graph: GraphBuilder, part: Difference) -> ir.Value:
    """[1], in the activations' type; computed in float32."""
    from drupe_onnx import ir

    wide = ir.DataType.FLOAT

    def raised(which: int) -> ir.Value:
        name = f"{part.name}/Power{which}"
        pair = [graph.wide(each) for each in part.weights[2 * which : 2 * which + 2]]
        product = graph.node("Mul", pair, f"{name}/Mul", [part.size], dtype=wide)
        total = graph.node("ReduceSum", [product, graph.integers([0])], f"{name}/Sum", [1], dtype=wide, keepdims=1)
        return graph.node("Exp", [total], name, [1], dtype=wide)

    apart = graph.node("Sub", [raised(0), raised(1)], f"{part.name}/Powers", [1], dtype=wide)
    share = graph.node("Add", [apart, graph.number(part.initial, wide)], f"{part.name}/Share", [1], dtype=wide)
    if graph.dtype == wide:
        return share
    return graph.node("Cast", [share], f"{part.name}/Narrow", [1], to=graph.dtype)
