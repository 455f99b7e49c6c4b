"""ShortConv: LFM2's mixer, a gated convolution over the last few tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import dims
from drupe_model_builder.parts.convolution import Convolution, convolution
from drupe_model_builder.parts.ends import drop_all_but_last
from drupe_model_builder.parts.linear import Linear, linear
from drupe_model_builder.parts.split import split
from drupe_model_builder.parts.state import ConvolutionState

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_model_builder.shared import Shared
    from drupe_onnx import ir


class ShortConv(Record):
    """output(c * convolution(b * x)), where b, c and x are the thirds of `input`'s result.

    name: the prefix of its nodes.
    """

    name: str
    input: Linear
    convolution: Convolution
    output: Linear

    @property
    def states(self) -> tuple[ConvolutionState]:
        """What it keeps of earlier tokens."""
        return (self.convolution.state,)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for part in (self.input, self.convolution, self.output):
            yield from part.tensors()


def short_conv(
    graph: GraphBuilder, part: ShortConv, x: ir.Value, shared: Shared, last_token: ir.Value | None
) -> ir.Value:
    """The result for x [batch, sequence, hidden]. last_token: the place of the only token kept; None for all."""
    thirds = [part.convolution.channels] * 3
    b, c, inner = split(graph, linear(graph, part.input, x, "conv.input"), thirds, part.name)
    opened = graph.node("Mul", [b, inner], f"{part.name}/Opened", dims(inner))
    mixed = convolution(graph, part.convolution, opened, shared, "a short convolution")
    out = graph.node("Mul", [c, mixed], f"{part.name}/Gated", dims(mixed))
    if last_token is not None:
        out = drop_all_but_last(graph, out, last_token, part.name)
    return linear(graph, part.output, out, "conv.output")
