"""GatedRecurrence: the recurrent block of Griffin (RG-LRU), https://arxiv.org/abs/2402.19427.

Each channel keeps one number. A token lets it decay at a rate that a gate makes, and adds its own input, times another
gate and a factor that keeps the size. This is the gated form of linear attention with one head a channel, whose keys
and values have one element: query and key are one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import BATCH, SEQUENCE, Dims, dims
from drupe_model_builder.parts.activations import activate
from drupe_model_builder.parts.convolution import Convolution, convolution
from drupe_model_builder.parts.ends import drop_all_but_last
from drupe_model_builder.parts.linear import Linear, linear
from drupe_model_builder.parts.required import required
from drupe_model_builder.parts.split import heads, joined, widened
from drupe_model_builder.parts.state import ConvolutionState, RecurrentState

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_model_builder.shared import Shared
    from drupe_onnx import ir

OPERATOR = "GatedDeltaNet"
WANTED_BY = "a recurrent layer"
GATES = "gates"
"""The role of the products of the gates, whose small matrices stay in floating point."""
FASTEST = -8.0
"""The logarithm of the decay is this, times the gate and the softplus of the channel's rate."""


class BlockGate(Record):
    """sigmoid(x times a matrix for each block of channels, plus a bias).

    weight: a tensor [blocks, size, size], stored as [in, out]. bias: a tensor [blocks, size].
    """

    weight: str
    bias: str
    blocks: int
    size: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        yield self.weight, (self.blocks, self.size, self.size)
        yield self.bias, (self.blocks, self.size)


class GatedRecurrence(Record):
    """A recurrent block: output(activation(gate(x)) * recurrence(convolution(inward(x)))).

    name: the prefix of its nodes. input_gate, decay_gate: of the recurrence. rate: a tensor [channels].
    """

    name: str
    layer: int
    gate: Linear
    inward: Linear
    activation: str
    convolution: Convolution
    input_gate: BlockGate
    decay_gate: BlockGate
    rate: str
    output: Linear

    @property
    def channels(self) -> int:
        return self.inward.size

    @property
    def states(self) -> tuple[ConvolutionState, RecurrentState]:
        """What it keeps of earlier tokens."""
        return self.convolution.state, RecurrentState(self.layer, self.channels, 1, 1)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for part in (self.gate, self.inward, self.convolution, self.input_gate, self.decay_gate, self.output):
            yield from part.tensors()
        yield self.rate, (self.channels,)


def gated_recurrence(
    graph: GraphBuilder, part: GatedRecurrence, x: ir.Value, shared: Shared, last_token: ir.Value | None
) -> ir.Value:
    """The result for x [batch, sequence, hidden]. last_token: the place of the only token kept; None for all."""
    name = part.name
    inner = convolution(graph, part.convolution, linear(graph, part.inward, x, "recurrence.input"), shared, WANTED_BY)
    out = _recurrence(graph, part, inner, shared)
    if last_token is not None:
        out = drop_all_but_last(graph, out, last_token, name)
        x = drop_all_but_last(graph, x, last_token, f"{name}.gate")
    opened = activate(graph, part.activation, linear(graph, part.gate, x, "recurrence.gate"), f"{name}.gate")
    gated = graph.node("Mul", [out, opened], f"{name}/Gated", dims(out))
    return linear(graph, part.output, gated, "recurrence.output")


def _recurrence(graph: GraphBuilder, part: GatedRecurrence, x: ir.Value, shared: Shared) -> ir.Value:
    """What each channel holds behind each token: [batch, sequence, channels]."""
    from drupe_onnx import ir

    name, state = part.name, part.states[1]
    turned = _by_block(graph, part, x)
    decay = _decay(graph, part, _gate(graph, part, part.decay_gate, turned, "DecayGate"))
    opened = _gate(graph, part, part.input_gate, turned, "InputGate")
    sized = graph.node("Mul", [opened, _size_kept(graph, part, decay, shared)], f"{name}/Sized", dims(x))
    value = graph.node("Mul", [x, sized], f"{name}/Value", dims(x))
    columns = [
        graph.node("Unsqueeze", [each, graph.integers([-1])], f"{each.name}/Column", [*dims(x), 1], dtype=each.dtype)
        for each in (value, decay)
    ]
    (past,) = shared.states.past(state)
    ones = _ones(graph, name, x)
    inputs = [ones, ones, columns[0], None, columns[1], None, past]
    outputs: list[tuple[ir.DataType, Dims]] = [(graph.dtype, [*dims(x), 1]), (ir.DataType.FLOAT, dims(past))]
    out, present = required(
        graph, OPERATOR, inputs, f"{name}/{OPERATOR}", outputs, WANTED_BY, update_rule="gated", scale=1.0
    )
    shared.states.keep(state, present)
    return joined(graph, out, name)


def _by_block(graph: GraphBuilder, part: GatedRecurrence, x: ir.Value) -> ir.Value:
    """x as [batch, blocks, sequence, size]."""
    gate = part.input_gate
    apart = heads(graph, x, gate.blocks, f"{part.name}/Blocks")
    shape: Dims = [BATCH, gate.blocks, SEQUENCE, gate.size]
    return graph.node("Transpose", [apart], f"{part.name}/ByBlock", shape, perm=[0, 2, 1, 3])


def _gate(graph: GraphBuilder, part: GatedRecurrence, gate: BlockGate, x: ir.Value, called: str) -> ir.Value:
    """The gate for x [batch, blocks, sequence, size]: [batch, sequence, channels]."""
    from drupe_onnx import Reshape, as_type

    name = f"{part.name}/{called}"
    weight = graph.initializer(gate.weight, as_type(graph.weights[gate.weight], graph.dtype))
    product = graph.node("MatMul", [x, weight], f"{name}/MatMul", dims(x), role=GATES)
    shape: Dims = [BATCH, SEQUENCE, gate.blocks, gate.size]
    made = joined(graph, graph.node("Transpose", [product], f"{name}/Tokens", shape, perm=[0, 2, 1, 3]), name)
    bias = graph.vector(gate.bias, Reshape(graph.weights[gate.bias], (part.channels,)))
    return graph.node("Sigmoid", [graph.node("Add", [made, bias], f"{name}/Add", dims(made))], name, dims(made))


def _decay(graph: GraphBuilder, part: GatedRecurrence, gate: ir.Value) -> ir.Value:
    """The logarithm of what is kept of each channel's number: float32 [batch, sequence, channels]."""
    from drupe_onnx import ir

    name, wide = f"{part.name}/Decay", ir.DataType.FLOAT
    rate = graph.node("Softplus", [graph.wide(part.rate)], f"{name}/Softplus", [part.channels], dtype=wide)
    rate = graph.node("Mul", [rate, graph.number(FASTEST, wide)], f"{name}/Rate", [part.channels], dtype=wide)
    return graph.node("Mul", [widened(graph, gate, f"{name}/Gate"), rate], name, dims(gate), dtype=wide)


def _size_kept(graph: GraphBuilder, part: GatedRecurrence, decay: ir.Value, shared: Shared) -> ir.Value:
    """sqrt(1 - decay^2), which keeps the size of what is added up; 1 for the first token of a sequence."""
    from drupe_onnx import ir

    name, wide, shape = f"{part.name}/SizeKept", ir.DataType.FLOAT, dims(decay)
    twice = graph.node("Mul", [decay, graph.number(2.0, wide)], f"{name}/Twice", shape, dtype=wide)
    square = graph.node("Exp", [twice], f"{name}/Square", shape, dtype=wide)
    rest = graph.node("Sub", [graph.number(1.0, wide), square], f"{name}/Rest", shape, dtype=wide)
    root = graph.node("Sqrt", [rest], f"{name}/Root", shape, dtype=wide)
    places = [shared.lengths.positions, graph.integers(0)]
    first = graph.node("Equal", places, f"{name}/First", [BATCH, SEQUENCE], dtype=ir.DataType.BOOL)
    column = graph.node(
        "Unsqueeze", [first, graph.integers([-1])], f"{name}/Column", [BATCH, SEQUENCE, 1], dtype=ir.DataType.BOOL
    )
    kept = graph.node("Where", [column, graph.number(1.0, wide), root], f"{name}/Wide", shape, dtype=wide)
    return kept if graph.dtype == wide else graph.node("Cast", [kept], name, shape, to=graph.dtype)


def _ones(graph: GraphBuilder, name: str, x: ir.Value) -> ir.Value:
    """Query and key of all channels: [batch, sequence, 1, 1]."""
    from drupe_onnx import ir

    whole = ir.DataType.INT64
    tokens = graph.node("Shape", [x], f"{name}/Tokens", [2], dtype=whole, start=0, end=2)
    shape = graph.node("Concat", [tokens, graph.integers([1, 1])], f"{name}/OnesShape", [4], dtype=whole, axis=0)
    return graph.node("Expand", [graph.number(1.0), shape], f"{name}/Ones", [BATCH, SEQUENCE, 1, 1])
