"""Laurel: a branch beside attention, through a small matrix and back, with its own residual (Gemma 3n).

LAUREL: learned augmented residual layer, https://arxiv.org/abs/2411.07501.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import dims
from drupe_model_builder.parts.linear import Linear, linear
from drupe_model_builder.parts.norm import Norm, norm

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


class Laurel(Record):
    """x + norm(outward(inward(x))). name: the prefix of its nodes."""

    name: str
    inward: Linear
    outward: Linear
    norm: Norm

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for part in (self.inward, self.outward, self.norm):
            yield from part.tensors()


def laurel(graph: GraphBuilder, part: Laurel, x: ir.Value) -> ir.Value:
    """x and the result are [batch, sequence, hidden]."""
    small = linear(graph, part.inward, x, "laurel.inward")
    more = norm(graph, part.norm, linear(graph, part.outward, small, "laurel.outward"))
    return graph.node("Add", [x, more], f"{part.name}/Add", dims(x))
