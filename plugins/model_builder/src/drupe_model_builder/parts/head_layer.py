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

    activation: its name in ACTIVATIONS; "" without one. norm: None without one.
    """

    linear: Linear
    activation: str = ""
    norm: Norm | None = None

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        yield from self.linear.tensors()
        if self.norm is not None:
            yield from self.norm.tensors()


def head_layer(graph: GraphBuilder, part: HeadLayer, x: ir.Value) -> ir.Value:
    """The result for x [batch, sequence, hidden], with as many values as the product gives."""
    made = linear(graph, part.linear, x, "projection")
    if part.activation:
        made = activate(graph, part.activation, made, f"{part.linear.name}.activation")
    return made if part.norm is None else norm(graph, part.norm, made)
