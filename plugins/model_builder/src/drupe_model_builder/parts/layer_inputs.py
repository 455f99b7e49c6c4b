"""LayerInputs: what each layer mixes in, made of a second embedding and of the first hidden states.

Gemma 3n and Gemma 4's small forms use both, EmbeddingGemma 2 the hidden states alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import dims
from drupe_model_builder.parts.activations import activate
from drupe_model_builder.parts.ends import looked_up, scaled
from drupe_model_builder.parts.linear import Linear, linear
from drupe_model_builder.parts.norm import Norm, norm
from drupe_model_builder.parts.split import heads, joined, split

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


class LayerInputs(Record):
    """The inputs of all layers: (table row * factor + norm(projection of the first hidden states)) / sqrt(2).

    table: the tensor [vocab_size, layers * size]; None for norm(projection) alone. norm: over each layer's part of the
    projection. first_beyond: whether tokens beyond the table have its first row; otherwise there are none.
    """

    table: str | None
    vocab_size: int
    layers: int
    size: int
    factor: float
    projection: Linear
    norm: Norm
    first_beyond: bool = False

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        if self.table is not None:
            yield self.table, (self.vocab_size, self.layers * self.size)
        yield from self.projection.tensors()
        yield from self.norm.tensors()


class LayerInput(Record):
    """output(activation(gate(x)) * the layer's input). name: the prefix of its nodes. layer: its number."""

    name: str
    layer: int
    gate: Linear
    output: Linear
    activation: str

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        yield from self.gate.tensors()
        yield from self.output.tensors()


def layer_inputs(graph: GraphBuilder, part: LayerInputs, ids: ir.Value, x: ir.Value) -> Sequence[ir.Value]:
    """The input of each layer: [batch, sequence, size]. ids: [batch, sequence]. x: the first hidden states."""
    made = heads(graph, linear(graph, part.projection, x, "layer_inputs.projection"), part.layers, part.norm.name)
    made = joined(graph, norm(graph, part.norm, made), part.norm.name)
    if part.table is not None:
        name, shape = part.table.removesuffix(".weight"), dims(made)
        ids = _inside(graph, part, ids, name) if part.first_beyond else ids
        rows = scaled(graph, looked_up(graph, part.table, ids, shape, "layer_inputs.table"), part.factor, name)
        made = scaled(graph, graph.node("Add", [rows, made], f"{name}/Add", shape), 2**-0.5, f"{name}.sum")
    return split(graph, made, [part.size] * part.layers, part.norm.name)


def _inside(graph: GraphBuilder, part: LayerInputs, ids: ir.Value, name: str) -> ir.Value:
    """The tokens' ids, with 0 for those beyond the table."""
    from drupe_onnx import ir

    shape, kind = dims(ids), ir.DataType.INT64
    inputs = [ids, graph.integers(part.vocab_size)]
    known = graph.node("Less", inputs, f"{name}/Known", shape, dtype=ir.DataType.BOOL)
    return graph.node("Where", [known, ids, graph.integers(0)], f"{name}/Inside", shape, dtype=kind)


def layer_input(graph: GraphBuilder, part: LayerInput, x: ir.Value, given: ir.Value) -> ir.Value:
    """x and the result are [batch, sequence, hidden]. given: the layer's input for the same tokens."""
    opened = activate(graph, part.activation, linear(graph, part.gate, x, "layer_input.gate"), part.name)
    opened = graph.node("Mul", [opened, given], f"{part.name}/Mul", dims(opened))
    return linear(graph, part.output, opened, "layer_input.output")
