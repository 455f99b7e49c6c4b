"""AltUp: several streams of hidden states, of which each layer computes one and predicts the others (Gemma 3n).

Alternating updates, https://arxiv.org/abs/2301.13310. The streams are one value [batch, sequence, streams, hidden].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drupe.api import Record, replace
from drupe_model_builder.dimensions import Dims, dims
from drupe_model_builder.parts.layer_inputs import LayerInput, layer_input
from drupe_model_builder.parts.linear import Linear, fused, linear
from drupe_model_builder.parts.norm import Norm, norm
from drupe_model_builder.parts.router import router_product
from drupe_model_builder.parts.split import heads, widened

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir

SMALLEST = 1e-5
"""The smallest mean square that a stream is divided by."""


class Streams(Record):
    """What makes streams of the first hidden states, and one state of the streams behind the last layer.

    The first stream is the hidden state itself. Each other one is a product with it, brought to its size. Behind the
    layers each but the first goes through a product of its own, gets the size of the first, and the mean is taken.
    """

    inward: tuple[Linear, ...]
    outward: tuple[Linear, ...]

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for part in (*self.inward, *self.outward):
            yield from part.tensors()


class AltUp(Record):
    """How one layer predicts all streams, computes one of them, and corrects all by what it has computed.

    name: the prefix of its nodes. count: of the streams. active: the number of the one that the layer computes.
    norm, router: make a few numbers of a hidden state, from which `prediction` and `correction` make coefficients.
    given: reads the layer's own input beside the corrected stream times `scale`, a tensor [hidden] or None; its
    result, after `given_norm`, is added to all streams but the first.
    """

    name: str
    count: int
    active: int
    norm: Norm
    router: Linear
    prediction: Linear
    correction: Linear
    scale: str | None
    given: LayerInput
    given_norm: Norm

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for part in (self.norm, self.router, self.prediction, self.correction, self.given, self.given_norm):
            yield from part.tensors()
        if self.scale is not None:
            yield self.scale, self.norm.shape


def spread(graph: GraphBuilder, part: Streams, x: ir.Value) -> ir.Value:
    """The streams [batch, sequence, streams, hidden] of the first hidden states x [batch, sequence, hidden]."""
    name, count = "streams", len(part.inward)
    products = fused(graph, part.inward, f"{name}.inward", x, "streams.inward")
    others = heads(graph, products, count, f"{name}.inward")
    return _with_others(graph, _column(graph, x, name), others, name)


def merged(graph: GraphBuilder, part: Streams, streams: ir.Value) -> ir.Value:
    """One hidden state [batch, sequence, hidden] of the streams behind the last layer."""
    name, count, (batch, sequence, _, hidden) = "streams.outward", len(part.outward), dims(streams)
    assert isinstance(hidden, int)
    products = [
        linear(graph, each, _stream(graph, streams, number, f"{name}{number}"), "streams.outward")
        for number, each in enumerate(part.outward, 1)
    ]
    joined = graph.node("Concat", products, f"{name}/Concat", [batch, sequence, count * hidden], axis=-1)
    first = _column(graph, _stream(graph, streams, 0, f"{name}0"), name)
    alike = _with_others(graph, first, heads(graph, joined, count, name), name)
    return graph.node("ReduceMean", [alike, graph.integers([2])], f"{name}/Mean", [batch, sequence, hidden], keepdims=0)


def predicted(graph: GraphBuilder, part: AltUp, streams: ir.Value) -> ir.Value:
    """The streams as they are before the layer computes one: each plus a mixture of all."""
    import numpy as np

    from drupe_onnx import Array

    name, count = f"{part.name}.prediction", part.count
    told = _told(graph, part, active(graph, part, streams, f"{name}.before"), name)
    mixing = router_product(graph, part.prediction, told)
    itself = graph.vector(f"constant/identity/{count}", Array(np.eye(count, dtype=np.float32).reshape(-1)))
    mixing = graph.node("Add", [mixing, itself], f"{name}/Itself", dims(mixing))
    return graph.node("MatMul", [heads(graph, mixing, count, name), streams], f"{name}/Mixed", dims(streams))


def active(graph: GraphBuilder, part: AltUp, streams: ir.Value, name: str) -> ir.Value:
    """The stream [batch, sequence, hidden] that the layer computes."""
    return _stream(graph, streams, part.active, name)


def corrected(graph: GraphBuilder, part: AltUp, streams: ir.Value, computed: ir.Value, given: ir.Value) -> ir.Value:
    """The streams behind the layer.

    streams: as predicted. computed: the active one, as the layer computed it. given: the layer's own input.
    """
    import numpy as np

    from drupe_onnx import Array

    name, shape = f"{part.name}.correction", dims(streams)
    factors = router_product(graph, part.correction, _told(graph, part, computed, name))
    factors = graph.node("Add", [factors, graph.number(1.0)], f"{name}/Factors", dims(factors))
    factors = graph.node("Unsqueeze", [factors, graph.integers([-1])], f"{name}/Column", [*dims(factors), 1])
    before = active(graph, part, streams, f"{name}.before")
    change = graph.node("Sub", [computed, before], f"{name}/Change", dims(computed))
    changes = graph.node("Mul", [_column(graph, change, name), factors], f"{name}/Changes", shape)
    streams = graph.node("Add", [streams, changes], f"{name}/Add", shape)
    others = Array(np.array([[0.0], *[[1.0]] * (part.count - 1)], np.float32))
    mask = graph.vector(f"constant/all_but_first/{part.count}", others)
    own = _column(graph, _from_input(graph, part, streams, given), f"{name}.own")
    own = graph.node("Mul", [own, mask], f"{name}/AllButFirst", shape)
    return graph.node("Add", [streams, own], f"{name}/Input", shape)


def _from_input(graph: GraphBuilder, part: AltUp, streams: ir.Value, given: ir.Value) -> ir.Value:
    """What the layer's own input adds."""
    name = f"{part.name}.corrected"
    x = active(graph, part, streams, name)
    if part.scale is not None:
        x = graph.node("Mul", [x, graph.vector(part.scale)], f"{name}/Scale", dims(x))
    return norm(graph, part.given_norm, layer_input(graph, part.given, x, given))


def _told(graph: GraphBuilder, part: AltUp, x: ir.Value, name: str) -> ir.Value:
    """The numbers [batch, sequence, streams] that coefficients are made from."""
    own = replace(part.norm, name=f"{name}.router_norm", tensor=part.norm.weight_name)
    routed = router_product(graph, part.router, norm(graph, own, x), f"{name}.router")
    return graph.node("Tanh", [routed], f"{name}/Tanh", dims(routed))


def _stream(graph: GraphBuilder, streams: ir.Value, number: int, name: str) -> ir.Value:
    """One of the streams: [batch, sequence, hidden]."""
    batch, sequence, _, hidden = dims(streams)
    inputs = [streams, graph.integers(number)]
    return graph.node("Gather", inputs, f"{name}/Stream", [batch, sequence, hidden], axis=2)


def _column(graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    """x [batch, sequence, hidden] as [batch, sequence, 1, hidden]."""
    batch, sequence, hidden = dims(x)
    return graph.node("Unsqueeze", [x, graph.integers([2])], f"{name}/AsStream", [batch, sequence, 1, hidden])


def _with_others(graph: GraphBuilder, first: ir.Value, others: ir.Value, name: str) -> ir.Value:
    """The first stream, and the others brought to its size: the root of the mean square."""
    from drupe_onnx import ir

    batch, sequence, count, hidden = dims(others)
    assert isinstance(count, int)
    wide, one = ir.DataType.FLOAT, [batch, sequence, count, 1]
    wanted = _mean_square(graph, first, f"{name}.first")
    own = _mean_square(graph, others, f"{name}.others")
    own = graph.node("Max", [own, graph.number(SMALLEST, wide)], f"{name}/Safe", one, dtype=wide)
    ratio = graph.node("Div", [wanted, own], f"{name}/Ratio", one, dtype=wide)
    ratio = graph.node("Sqrt", [ratio], f"{name}/Sqrt", one, dtype=wide)
    if graph.dtype != wide:
        ratio = graph.node("Cast", [ratio], f"{name}/Narrow", one, to=graph.dtype)
    alike = graph.node("Mul", [others, ratio], f"{name}/Alike", dims(others))
    shape: Dims = [batch, sequence, count + 1, hidden]
    return graph.node("Concat", [first, alike], f"{name}/Streams", shape, axis=2)


def _mean_square(graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    """float32 [..., 1]: squares overflow in float16."""
    from drupe_onnx import ir

    kind, x = ir.DataType.FLOAT, widened(graph, x, f"{name}/Wide")
    square = graph.node("Mul", [x, x], f"{name}/Square", dims(x), dtype=kind)
    one = [*dims(x)[:-1], 1]
    return graph.node("ReduceMean", [square, graph.integers([-1])], f"{name}/MeanSquare", one, dtype=kind, keepdims=1)
