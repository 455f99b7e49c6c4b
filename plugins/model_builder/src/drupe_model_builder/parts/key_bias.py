"""KeyBias: what each key adds to its products with all queries, made from the key's value (Doge's dynamic mask).

It is kept with the key: one more element of each key, which an element of each query multiplies that undoes the scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import dims
from drupe_model_builder.parts.linear import Linear, linear
from drupe_model_builder.parts.split import heads, joined

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir

GATES = "gates"
"""The role of the product, whose small matrix stays in floating point."""


class KeyBias(Record):
    """exp(rate * softplus(product of the values of all heads)), one number for each head of keys.

    name: the prefix of its nodes. rate: a tensor with a number for each head.
    """

    name: str
    product: Linear
    rate: str

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        yield from self.product.tensors()
        yield self.rate, (self.product.size,)


def key_with_bias(graph: GraphBuilder, part: KeyBias, key: ir.Value, value: ir.Value) -> ir.Value:
    """Keys [batch, sequence, heads * size] with one more element a head: the bias."""
    name, count = part.name, part.product.size
    step = linear(graph, part.product, value, GATES)
    step = graph.node("Softplus", [step], f"{name}/Softplus", dims(step))
    power = graph.node("Mul", [step, graph.vector(part.rate)], f"{name}/Power", dims(step))
    bias = graph.node("Exp", [power], f"{name}/Bias", dims(step))
    column = graph.node("Unsqueeze", [bias, graph.integers([-1])], f"{name}/Column", [*dims(bias), 1])
    apart = heads(graph, key, count, f"{name}/Key")
    *before, size = dims(apart)
    assert isinstance(size, int)
    wide = graph.node("Concat", [apart, column], f"{name}/Key", [*before, size + 1], axis=-1)
    return joined(graph, wide, f"{name}/Key")


def query_for_bias(graph: GraphBuilder, part: KeyBias, query: ir.Value, count: int, scale: float) -> ir.Value:
    """Queries [batch, sequence, count * size] with one more element a head, which is 1 where it is scaled."""
    apart = heads(graph, query, count, f"{part.name}/Query")
    *before, size = dims(apart)
    assert isinstance(size, int)
    inputs = [apart, graph.integers([0] * 7 + [1]), graph.number(1 / scale)]
    wide = graph.node("Pad", inputs, f"{part.name}/Query", [*before, size + 1])
    return joined(graph, wide, f"{part.name}/Query")
