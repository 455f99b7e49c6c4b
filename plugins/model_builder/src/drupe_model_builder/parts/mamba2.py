"""Mamba2: a state space model with one decay a head, https://arxiv.org/abs/2405.21060.

Each head keeps a matrix. A token lets it decay, adds the product of its input and B, and reads it with C. This is the
gated form of linear attention: C is the query, B the key, and the input times the time step the value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from drupe.api import Record, replace
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
WANTED_BY = "a Mamba-2 layer"


class Mamba2(Record):
    """A Mamba-2 mixer.

    name: the prefix of its nodes. inputs: z, x, B, C and the time step, one after the other. groups: how many B and C
    there are; heads / groups heads share them. a_log, step_bias, skip: tensors [heads]. limits: of the time step.
    norm: over each group of the output; None without one. gate_first: whether the gate silu(z) comes before the norm.
    """

    name: str
    layer: int
    inputs: tuple[Linear, Linear, Linear, Linear, Linear]
    convolution: Convolution
    a_log: str
    step_bias: str
    skip: str
    output: Linear
    heads: int
    head_dim: int
    groups: int
    state_size: int
    norm: Norm | None = None
    gate_first: bool = True
    limits: tuple[float, float] = (0.0, math.inf)

    @property
    def width(self) -> int:
        """The size of z, of x, and of the output before its projection."""
        return self.heads * self.head_dim

    @property
    def states(self) -> tuple[ConvolutionState, RecurrentState]:
        """What it keeps of earlier tokens."""
        return self.convolution.state, RecurrentState(self.layer, self.heads, self.head_dim, self.state_size)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for part in (*self.inputs, self.convolution, self.norm, self.output):
            if part is not None:
                yield from part.tensors()
        for vector in (self.a_log, self.step_bias, self.skip):
            yield vector, (self.heads,)


def mamba2(graph: GraphBuilder, part: Mamba2, x: ir.Value, shared: Shared, last_token: ir.Value | None) -> ir.Value:
    """The result for x [batch, sequence, hidden]. last_token: the place of the only token kept; None for all."""
    name = part.name
    gate, mixed, step = _projected(graph, part, x)
    mixed = convolution(graph, part.convolution, mixed, shared, WANTED_BY)
    groups = part.groups * part.state_size
    inner, b, c = split(graph, mixed, [part.width, groups, groups], name)
    out = joined(graph, _recurrence(graph, part, inner, b, c, step, shared), name)
    if last_token is not None:
        out = drop_all_but_last(graph, out, last_token, name)
        gate = drop_all_but_last(graph, gate, last_token, f"{name}.gate")
    return linear(graph, part.output, _gated(graph, part, out, gate), "mamba2.output")


def _projected(graph: GraphBuilder, part: Mamba2, x: ir.Value) -> list[ir.Value]:
    """z, the inputs of the convolution as one value, and the time step."""
    name = f"{part.name}.in_proj"
    z, *mixed, step = part.inputs
    if len({each.factor for each in part.inputs}) == 1:
        sizes = [z.size, sum(each.size for each in mixed), step.size]
        return list(split(graph, fused(graph, list(part.inputs), name, x, "mamba2.input"), sizes, name))
    plain = [replace(each, factor=1.0) for each in part.inputs]
    whole = fused(graph, plain, name, x, "mamba2.input")
    whole = graph.node("Mul", [whole, _factors(graph, part)], f"{name}/Factors", dims(whole))
    return list(split(graph, whole, [z.size, sum(each.size for each in mixed), step.size], name))


def _factors(graph: GraphBuilder, part: Mamba2) -> ir.Value:
    """The factors of all inputs as one vector."""
    import numpy as np

    from drupe_onnx import Array

    factors = np.concatenate([np.full(each.size, each.factor, np.float32) for each in part.inputs])
    return graph.vector(f"{part.name}.in_proj.factors", Array(factors))


def _recurrence(
    graph: GraphBuilder, part: Mamba2, x: ir.Value, b: ir.Value, c: ir.Value, step: ir.Value, shared: Shared
) -> ir.Value:
    """What each head reads, and its input times `skip`: [batch, sequence, heads, head_dim]."""
    from drupe_onnx import ir

    name, state = part.name, part.states[1]
    x = heads(graph, x, part.heads, f"{name}/Input")
    key, query = (heads(graph, each, part.groups, f"{name}/{which}") for each, which in ((b, "B"), (c, "C")))
    length = graph.node("Add", [step, graph.vector(part.step_bias)], f"{name}/StepBias", dims(step))
    length = graph.node("Softplus", [length], f"{name}/Step", dims(step))
    attributes: dict[str, Any] = {"update_rule": "gated", "scale": 1.0}
    if part.limits == (0.0, math.inf):
        decay, a_log, bias = step, graph.wide(part.a_log), graph.wide(part.step_bias)
        attributes["gate_activation"] = "softplus"
    else:
        limits = [graph.number(each) for each in part.limits]
        length = graph.node("Clip", [length, *limits], f"{name}/Limits", dims(step))
        decay, a_log, bias = _decay(graph, part, length), None, None
    column = graph.node("Unsqueeze", [length, graph.integers([-1])], f"{name}/Column", [*dims(step), 1])
    value = graph.node("Mul", [x, column], f"{name}/Value", dims(x))
    (past,) = shared.states.past(state)
    decay = widened(graph, decay, f"{name}/WideDecay")
    inputs = [query, key, value, None, decay, None, past, a_log, bias]
    while inputs[-1] is None:
        inputs.pop()
    outputs = [(graph.dtype, dims(x)), (ir.DataType.FLOAT, dims(past))]
    out, present = required(graph, OPERATOR, inputs, f"{name}/{OPERATOR}", outputs, WANTED_BY, **attributes)
    shared.states.keep(state, present)
    skipped = graph.node("Mul", [x, _column(graph, part)], f"{name}/Skip", dims(x))
    return graph.node("Add", [out, skipped], f"{name}/Add", dims(x))


def _decay(graph: GraphBuilder, part: Mamba2, length: ir.Value) -> ir.Value:
    """-exp(a_log) * length."""
    shape = [part.heads]
    rate = graph.node("Exp", [graph.vector(part.a_log)], f"{part.name}/Rate", shape)
    rate = graph.node("Neg", [rate], f"{part.name}/Decays", shape)
    return graph.node("Mul", [length, rate], f"{part.name}/Decay", dims(length))


def _column(graph: GraphBuilder, part: Mamba2) -> ir.Value:
    """`skip` as [heads, 1]."""
    from drupe_onnx import Reshape

    return graph.vector(part.skip, Reshape(graph.weights[part.skip], (part.heads, 1)))


def _gated(graph: GraphBuilder, part: Mamba2, x: ir.Value, gate: ir.Value) -> ir.Value:
    """x with its gate, and its norm over each group."""
    opened = activate(graph, "silu", gate, f"{part.name}.gate")
    if part.norm is None or part.gate_first:
        x = graph.node("Mul", [x, opened], f"{part.name}/Gated", dims(x))
    if part.norm is not None:
        x = _norm_of_groups(graph, part, part.norm, x)
        if not part.gate_first:
            x = graph.node("Mul", [x, opened], f"{part.name}/Gated", dims(x))
    return x


def _norm_of_groups(graph: GraphBuilder, part: Mamba2, of: Norm, x: ir.Value) -> ir.Value:
    """The norm of each group of x's last axis; its weight is as long as the axis."""
    if part.groups == 1:
        return norm(graph, of, x)
    apart = heads(graph, x, part.groups, of.name)
    plain = replace(of, name=f"{of.name}.group", shape=(part.width // part.groups,), weight=False)
    normed = joined(graph, norm(graph, plain, apart), of.name)
    return graph.node("Mul", [normed, graph.vector(f"{of.name}.weight")], f"{of.name}/Mul", dims(x))
