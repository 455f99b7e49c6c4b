"""LightningAttention: linear attention whose decay is fixed for each head, https://arxiv.org/abs/2501.08313.

Each head keeps a matrix. A token lets it decay, adds the product of its key and value, and reads it with its query.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import BATCH, SEQUENCE, Dims, dims
from drupe_model_builder.parts.activations import activate
from drupe_model_builder.parts.ends import drop_all_but_last
from drupe_model_builder.parts.linear import Linear, fused, linear
from drupe_model_builder.parts.norm import Norm, norm
from drupe_model_builder.parts.required import required
from drupe_model_builder.parts.split import heads, joined, split
from drupe_model_builder.parts.state import ConvolutionState, RecurrentState

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_model_builder.shared import Shared
    from drupe_onnx import ir

OPERATOR = "GatedDeltaNet"
WANTED_BY = "lightning attention"


class LightningAttention(Record):
    """output(sigmoid(gate(x)) * norm(recurrence)) of the activations of query, key and value.

    name: the prefix of its nodes. decays: the logarithm of what is kept of each head's matrix at a token. norm: over
    all heads together.
    """

    name: str
    layer: int
    query: Linear
    key: Linear
    value: Linear
    activation: str
    decays: tuple[float, ...]
    norm: Norm
    gate: Linear
    output: Linear

    @property
    def heads(self) -> int:
        return len(self.decays)

    @property
    def head_dim(self) -> int:
        return self.value.size // self.heads

    @property
    def states(self) -> tuple[ConvolutionState, RecurrentState]:
        """What it keeps of earlier tokens. It has no convolution: onnxruntime-genai wants both states, or neither."""
        return ConvolutionState(self.layer, 1, 1), RecurrentState(self.layer, self.heads, self.head_dim, self.head_dim)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for part in (self.query, self.key, self.value, self.norm, self.gate, self.output):
            yield from part.tensors()


def lightning_attention(
    graph: GraphBuilder, part: LightningAttention, x: ir.Value, shared: Shared, last_token: ir.Value | None
) -> ir.Value:
    """The result for x [batch, sequence, hidden]. last_token: the place of the only token kept; None for all."""
    name = part.name
    both = fused(graph, [part.query, part.key, part.value, part.gate], f"{name}.in_proj", x, "lightning.input")
    mixed, gate = split(graph, both, [3 * part.value.size, part.gate.size], f"{name}.in_proj")
    mixed = activate(graph, part.activation, mixed, f"{name}/Activation")
    out = joined(graph, _recurrence(graph, part, mixed, shared), name)
    if last_token is not None:
        out = drop_all_but_last(graph, out, last_token, name)
        gate = drop_all_but_last(graph, gate, last_token, f"{name}.gate")
    opened = graph.node("Sigmoid", [gate], f"{name}/Gate", dims(gate))
    gated = graph.node("Mul", [norm(graph, part.norm, out), opened], f"{name}/Gated", dims(out))
    return linear(graph, part.output, gated, "lightning.output")


def _recurrence(graph: GraphBuilder, part: LightningAttention, mixed: ir.Value, shared: Shared) -> ir.Value:
    """What each head reads: [batch, sequence, heads, head_dim]. Padding adds nothing to a state of zeros."""
    from drupe_onnx import ir

    name, unused, state = part.name, *part.states
    query, key, value = split(graph, mixed, [part.value.size] * 3, name)
    value = shared.lengths.without_padding(value, f"{name}/WithoutPadding")
    inner = [
        heads(graph, each, part.heads, f"{name}/{called}")
        for each, called in ((query, "Query"), (key, "Key"), (value, "Value"))
    ]
    (past,) = shared.states.past(state)
    inputs = [*inner, None, _decays(graph, part, mixed), None, past]
    outputs: list[tuple[ir.DataType, Dims]] = [(graph.dtype, dims(inner[2])), (ir.DataType.FLOAT, dims(past))]
    out, present = required(
        graph, OPERATOR, inputs, f"{name}/{OPERATOR}", outputs, WANTED_BY, update_rule="gated", scale=1.0
    )
    shared.states.keep(state, present)
    (before,) = shared.states.past(unused)
    shared.states.keep(unused, graph.node("Identity", [before], f"{name}/Unused", dims(before)))
    return out


def _decays(graph: GraphBuilder, part: LightningAttention, x: ir.Value) -> ir.Value:
    """The decay of each head at each token of x: float32 [batch, sequence, heads]."""
    import numpy as np

    from drupe_onnx import Array, ir

    name, whole = f"{part.name}/Decay", ir.DataType.INT64
    tokens = graph.node("Shape", [x], f"{name}/Tokens", [2], dtype=whole, start=0, end=2)
    shape = graph.node("Concat", [tokens, graph.integers([part.heads])], f"{name}/Shape", [3], dtype=whole, axis=0)
    values = graph.initializer(f"{part.name}.decays", Array(np.array(part.decays, np.float32)))
    return graph.node("Expand", [values, shape], name, [BATCH, SEQUENCE, part.heads], dtype=ir.DataType.FLOAT)
