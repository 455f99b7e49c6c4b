"""HeadLayer: what hidden states go through between the final norm and the product that gives logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.parts.activations import activate
from drupe_model_builder.parts.linear import Linear, linear
from drupe_model_builder.parts.norm import Norm, norm

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


class HeadLayer(Record):
    """norm(activation(linear(x))), as BERT has it before its product with the vocabulary.

    activation: its name in ACTIVATIONS.
    """

    linear: Linear
    activation: str
    norm: Norm

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        yield from self.linear.tensors()
        yield from self.norm.tensors()


def head_layer(graph: GraphBuilder, part: HeadLayer, x: ir.Value) -> ir.Value:
    """x and the result are [batch, sequence, hidden]."""
    made = linear(graph, part.linear, x, "projection")
    return norm(graph, part.norm, activate(graph, part.activation, made, f"{part.linear.name}.activation"))
