"""Convolution: each channel is mixed over the last tokens; the tokens before the current call are a state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from drupe.api import Record
from drupe_model_builder.dimensions import BATCH, SEQUENCE, Dims, dims
from drupe_model_builder.parts.required import required
from drupe_model_builder.parts.state import ConvolutionState

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_model_builder.shared import Shared
    from drupe_onnx import Expression, ir

OPERATOR = "CausalConvWithState"


class Convolution(Record):
    """A causal convolution by channel.

    name: the prefix of its nodes. layer: its number, which its state has. kernel: how many tokens it reads, including
    the current one. pieces: the prefixes of its tensors, each with its number of channels, one piece after the other.
    """

    name: str
    layer: int
    kernel: int
    pieces: tuple[tuple[str, int], ...]
    bias: bool = False
    activation: Literal["silu", "none"] = "none"

    @property
    def channels(self) -> int:
        return sum(channels for _, channels in self.pieces)

    @property
    def state(self) -> ConvolutionState:
        """What it keeps of earlier tokens."""
        return ConvolutionState(self.layer, self.channels, self.kernel - 1)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for name, channels in self.pieces:
            yield f"{name}.weight", (channels, 1, self.kernel)
            if self.bias:
                yield f"{name}.bias", (channels,)


def convolution(graph: GraphBuilder, part: Convolution, x: ir.Value, shared: Shared, wanted_by: str) -> ir.Value:
    """The convolution of x [batch, sequence, channels]. wanted_by: what it is part of, for errors.

    Padding is zero in x, as its state is before the first token, and in the result, so that a recurrence adds nothing.
    """
    x = shared.lengths.without_padding(x, f"{part.name}/WithoutPadding")
    along: Dims = [BATCH, part.channels, SEQUENCE]
    turned = graph.node("Transpose", [x], f"{part.name}/Channels", along, perm=[0, 2, 1])
    (past,) = shared.states.past(part.state)
    inputs = [turned, _tensor(graph, part, "weight"), _tensor(graph, part, "bias") if part.bias else None, past]
    outputs: list[tuple[ir.DataType, Dims]] = [(graph.dtype, along), (graph.dtype, dims(past))]
    made, present = required(
        graph, OPERATOR, inputs, f"{part.name}/{OPERATOR}", outputs, wanted_by, activation=part.activation
    )
    shared.states.keep(part.state, present)
    out = graph.node("Transpose", [made], f"{part.name}/Tokens", dims(x), perm=[0, 2, 1])
    return shared.lengths.without_padding(out, f"{part.name}/PaddingLeftOut") if part.bias else out


def _tensor(graph: GraphBuilder, part: Convolution, kind: str) -> ir.Value:
    """The weight or bias of all pieces."""
    from drupe_onnx import Concat

    pieces: list[Expression] = [graph.weights[f"{name}.{kind}"] for name, _ in part.pieces]
    return graph.vector(f"{part.name}.{kind}", pieces[0] if len(pieces) == 1 else Concat(tuple(pieces)))
