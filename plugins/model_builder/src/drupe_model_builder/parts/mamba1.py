"""Mamba1: a state space model with a decay for each element of its state, https://arxiv.org/abs/2312.00752.

Each channel keeps a vector. A token lets each element decay at its own rate, adds B times the channel's input, and
reads the vector with C. This is the gated form of linear attention with one head a channel, whose values have one
element: C is the query, B the key, both shared by all heads, and the input times the time step the value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import dims
from drupe_model_builder.parts.activations import activate
from drupe_model_builder.parts.convolution import Convolution, convolution
from drupe_model_builder.parts.ends import drop_all_but_last
from drupe_model_builder.parts.linear import Linear, fused, linear
from drupe_model_builder.parts.norm import Norm, norm
from drupe_model_builder.parts.required import required
from drupe_model_builder.parts.split import heads, joined, split, widened
from drupe_model_builder.parts.state import ConvolutionState, RecurrentState

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_model_builder.shared import Shared
    from drupe_onnx import ir

OPERATOR = "GatedDeltaNet"
WANTED_BY = "a Mamba layer"


class Mamba1(Record):
    """A Mamba mixer.

    name: the prefix of its nodes. inputs: x and its gate. selection: of the convolution's result: the latent of the
    time step, B and C. norms: of these three; empty without norms. step: the time step of each channel from its latent;
    it has a bias. a_log: a tensor [channels, state_size]; elements decay by exp(-exp(a_log) * step). skip: a tensor
    [channels], the share of the input in the output.
    """

    name: str
    layer: int
    inputs: tuple[Linear, Linear]
    convolution: Convolution
    selection: Linear
    step: Linear
    a_log: str
    skip: str
    output: Linear
    state_size: int
    norms: tuple[Norm, ...] = ()

    @property
    def channels(self) -> int:
        return self.step.size

    @property
    def states(self) -> tuple[ConvolutionState, RecurrentState]:
        """What it keeps of earlier tokens."""
        return self.convolution.state, RecurrentState(self.layer, self.channels, 1, self.state_size)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for product in (*self.inputs, self.selection, self.step, self.output):
            yield from product.tensors()
        yield from self.convolution.tensors()
        for each in self.norms:
            yield from each.tensors()
        yield self.a_log, (self.channels, self.state_size)
        yield self.skip, (self.channels,)


def mamba1(graph: GraphBuilder, part: Mamba1, x: ir.Value, shared: Shared, last_token: ir.Value | None) -> ir.Value:
    """The result for x [batch, sequence, hidden]. last_token: the place of the only token kept; None for all."""
    name = part.name
    both = fused(graph, part.inputs, f"{name}.in_proj", x, "mamba.input")
    inner, gate = split(graph, both, [part.channels] * 2, f"{name}.in_proj")
    inner = convolution(graph, part.convolution, inner, shared, WANTED_BY)
    out = _recurrence(graph, part, inner, shared)
    if last_token is not None:
        out = drop_all_but_last(graph, out, last_token, name)
        gate = drop_all_but_last(graph, gate, last_token, f"{name}.gate")
    opened = activate(graph, "silu", gate, f"{name}.gate")
    return linear(graph, part.output, graph.node("Mul", [out, opened], f"{name}/Gated", dims(out)), "mamba.output")


def _recurrence(graph: GraphBuilder, part: Mamba1, x: ir.Value, shared: Shared) -> ir.Value:
    """What each channel reads, and its input times `skip`: [batch, sequence, channels]."""
    from drupe_onnx import ir

    name, state = part.name, part.states[1]
    step, key, query = _selected(graph, part, x)
    scaled = graph.node("Mul", [x, step], f"{name}/Scaled", dims(x))
    value = graph.node("Unsqueeze", [scaled, graph.integers([-1])], f"{name}/Value", [*dims(x), 1])
    (past,) = shared.states.past(state)
    inputs = [query, key, value, None, _decay(graph, part, step), None, past]
    outputs = [(graph.dtype, dims(value)), (ir.DataType.FLOAT, dims(past))]
    out, present = required(
        graph, OPERATOR, inputs, f"{name}/{OPERATOR}", outputs, WANTED_BY, update_rule="gated", scale=1.0
    )
    shared.states.keep(state, present)
    skipped = graph.node("Mul", [x, graph.vector(part.skip)], f"{name}/Skip", dims(x))
    return graph.node("Add", [joined(graph, out, name), skipped], f"{name}/Add", dims(x))


def _selected(graph: GraphBuilder, part: Mamba1, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The time step [batch, sequence, channels], B and C [batch, sequence, 1, state_size]."""
    name, size = part.name, part.state_size
    chosen = linear(graph, part.selection, x, "mamba.selection")
    parts = list(split(graph, chosen, [part.selection.size - 2 * size, size, size], f"{name}.selection"))
    if part.norms:
        parts = [norm(graph, of, each) for of, each in zip(part.norms, parts, strict=True)]
    latent, b, c = parts
    step = linear(graph, part.step, latent, "mamba.step")
    step = graph.node("Softplus", [step], f"{name}/Step", dims(step))
    return step, heads(graph, b, 1, f"{name}/B"), heads(graph, c, 1, f"{name}/C")


def _decay(graph: GraphBuilder, part: Mamba1, step: ir.Value) -> ir.Value:
    """float32 [batch, sequence, channels, state_size]: -exp(a_log) * step."""
    from drupe_onnx import ir

    name, wide, shape = part.name, ir.DataType.FLOAT, [part.channels, part.state_size]
    rate = graph.node("Exp", [graph.wide(part.a_log)], f"{name}/Rate", shape, dtype=wide)
    rate = graph.node("Neg", [rate], f"{name}/Decays", shape, dtype=wide)
    step = widened(graph, step, f"{name}/WideStep")
    column = graph.node("Unsqueeze", [step, graph.integers([-1])], f"{name}/Column", [*dims(step), 1], dtype=wide)
    return graph.node("Mul", [column, rate], f"{name}/Decay", [*dims(step), part.state_size], dtype=wide)
