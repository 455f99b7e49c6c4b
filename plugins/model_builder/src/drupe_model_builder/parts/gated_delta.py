"""GatedDelta: linear attention with a gated delta rule, https://arxiv.org/abs/2412.06464, as in Qwen 3.5.

Each head keeps a matrix. A token lets it decay, corrects what it holds for the token's key towards the token's value,
and reads it with the token's query.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from drupe.api import Record
from drupe_model_builder.dimensions import Dims, dims
from drupe_model_builder.parts.convolution import Convolution, convolution
from drupe_model_builder.parts.ends import drop_all_but_last
from drupe_model_builder.parts.linear import Linear, fused, linear
from drupe_model_builder.parts.norm import Norm, gamma
from drupe_model_builder.parts.required import required
from drupe_model_builder.parts.split import heads, joined, split, widened
from drupe_model_builder.parts.state import ConvolutionState, RecurrentState

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_model_builder.shared import Shared
    from drupe_onnx import ir

OPERATOR, NORM = "GatedDeltaNet", "GatedRMSNorm"
WANTED_BY = "linear attention"
SMALLEST_SQUARE = 1e-6
"""Is added to the square of a query's or key's length."""
GATES = "gates"
"""The role of the product that gives each head's rate and decay."""


class GatedDelta(Record):
    """Linear attention of one layer.

    name: the prefix of its nodes. projections: give query, key and value, one after the other. gate: of the output.
    rate: one value a head. decay: one a head, or one for each of its key's elements (Kimi's delta attention).
    gate_latent, decay_latent: products before those of the gate and of the decay. a_log, decay_bias: tensors with one
    value a head, or as many as `decay` has; a head's matrix decays by exp(-exp(a_log) * softplus(decay + decay_bias)),
    or with a `decay_bound` by exp(decay_bound * sigmoid(exp(a_log) * (decay + decay_bias))). a_log_shape: where it is
    another than [value_heads]. rate_factor: on the rate's sigmoid; 2 lets a value be turned round. norm: of each head's
    output, before the gate. gate_activation: what opens it. query and key heads are shared by value_heads / key_heads.
    """

    name: str
    layer: int
    projections: tuple[Linear, ...]
    convolution: Convolution
    gate: Linear
    rate: Linear
    decay: Linear
    a_log: str
    decay_bias: str
    norm: Norm
    output: Linear
    key_heads: int
    value_heads: int
    key_size: int
    value_size: int
    rate_factor: float = 1.0
    gate_activation: Literal["silu", "sigmoid"] = "silu"
    gate_latent: Linear | None = None
    decay_latent: Linear | None = None
    a_log_shape: tuple[int, ...] = ()
    decay_bound: float | None = None

    @property
    def states(self) -> tuple[ConvolutionState, RecurrentState]:
        """What it keeps of earlier tokens."""
        return self.convolution.state, RecurrentState(self.layer, self.value_heads, self.value_size, self.key_size)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        latents = (self.gate_latent, self.decay_latent)
        for linear_part in (*self.projections, self.gate, self.rate, self.decay, *latents, self.output):
            if linear_part is not None:
                yield from linear_part.tensors()
        yield from self.convolution.tensors()
        yield from self.norm.tensors()
        yield self.a_log, self.a_log_shape or (self.value_heads,)
        yield self.decay_bias, (self.decay.size,)


def gated_delta(
    graph: GraphBuilder, part: GatedDelta, x: ir.Value, shared: Shared, last_token: ir.Value | None
) -> ir.Value:
    """The result for x [batch, sequence, hidden]. last_token: the place of the only token kept; None for all."""
    name = part.name
    mixed, gate = _projected(graph, part, x)
    mixed = convolution(graph, part.convolution, mixed, shared, WANTED_BY)
    both = 2 * part.key_heads
    query_and_key, value = split(graph, mixed, [both * part.key_size, part.value_heads * part.value_size], name)
    query_and_key = _of_length_one(graph, part, heads(graph, query_and_key, both, f"{name}/QueryAndKey"))
    value = heads(graph, value, part.value_heads, f"{name}/Value")
    query, key = split(graph, query_and_key, [part.key_heads] * 2, f"{name}/QueryAndKey", axis=2)
    inner = [query, key, value]
    out = joined(graph, _recurrence(graph, part, inner, x, shared), name)
    if last_token is not None:
        out = drop_all_but_last(graph, out, last_token, name)
        gate = drop_all_but_last(graph, gate, last_token, f"{name}.gate")
    inputs = [out, gamma(graph, part.norm), gate]
    (out,) = required(
        graph, NORM, inputs, f"{name}/{NORM}", [(graph.dtype, dims(out))], WANTED_BY, epsilon=part.norm.epsilon,
        activation=part.gate_activation,
    )  # fmt: skip
    return linear(graph, part.output, out, "gated_delta.output")


def _of_length_one(graph: GraphBuilder, part: GatedDelta, x: ir.Value) -> ir.Value:
    """x / sqrt(sum of squares + 1e-6) of each head, as an RMS norm. The operator's own has no such epsilon."""
    import numpy as np

    from drupe_onnx import Array

    size = part.key_size
    weight = graph.vector(f"constant/unit/{size}", Array(np.full(size, size**-0.5, np.float32)))
    attributes = {"axis": -1, "epsilon": SMALLEST_SQUARE / size, "stash_type": 1}
    outputs: list[tuple[ir.DataType, Dims]] = [(graph.dtype, dims(x))]
    name = f"{part.name}/LengthOne"
    return required(
        graph, "SimplifiedLayerNormalization", [x, weight], name, outputs, WANTED_BY, domain="", **attributes
    )[0]


def _projected(graph: GraphBuilder, part: GatedDelta, x: ir.Value) -> Sequence[ir.Value]:
    """Query, key and value as one value, and the gate, of one product."""
    opener = part.gate_latent or part.gate
    parts = [*part.projections, opener]
    both = fused(graph, parts, f"{part.name}.in_proj", x, "gated_delta.input")
    sizes = [sum(each.size for each in part.projections), opener.size]
    mixed, gate = split(graph, both, sizes, f"{part.name}.in_proj")
    return mixed, gate if part.gate_latent is None else linear(graph, part.gate, gate, "gated_delta.input")


def _recurrence(graph: GraphBuilder, part: GatedDelta, inner: list[ir.Value], x: ir.Value, shared: Shared) -> ir.Value:
    """What each head reads: [batch, sequence, value heads, value size]."""
    from drupe_onnx import Reshape, ir

    name, state = part.name, part.states[1]
    decaying = part.decay_latent or part.decay
    gates = fused(graph, [part.rate, decaying], f"{name}.gates", x, GATES)
    rate, decay = split(graph, gates, [part.value_heads, decaying.size], f"{name}.gates")
    if part.decay_latent is not None:
        decay = linear(graph, part.decay, decay, GATES)
    if part.decay.size != part.value_heads:
        decay = heads(graph, decay, part.value_heads, f"{name}/Decay")
    attributes: dict[str, Any] = {"gate_activation": "softplus", "beta_activation": "sigmoid"}
    if part.decay_bound is not None:
        attributes |= {"gate_activation": "sigmoid", "gate_lower_bound": part.decay_bound}
    if part.rate_factor != 1.0:
        rate = graph.node("Sigmoid", [rate], f"{name}/Rate", dims(rate))
        rate = graph.node("Mul", [rate, graph.number(part.rate_factor)], f"{name}/RateFactor", dims(rate))
        attributes["beta_activation"] = "none"
    (past,) = shared.states.past(state)
    decay, rate = widened(graph, decay, f"{name}/WideDecay"), widened(graph, rate, f"{name}/WideRate")
    a_log = graph.wide(part.a_log, Reshape(graph.weights[part.a_log], (part.value_heads,)))
    inputs = [*inner, None, decay, rate, past, a_log, graph.wide(part.decay_bias)]
    outputs = [(graph.dtype, dims(inner[2])), (ir.DataType.FLOAT, dims(past))]
    out, present = required(graph, OPERATOR, inputs, f"{name}/{OPERATOR}", outputs, WANTED_BY, **attributes)
    shared.states.keep(state, present)
    return out
