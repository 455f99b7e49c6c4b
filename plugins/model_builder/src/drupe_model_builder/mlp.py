"""The gated MLP: down(activation(gate(x)) * up(x))."""

from __future__ import annotations

from drupe_model_builder.activations import ACTIVATIONS
from drupe_model_builder.graph import GraphBuilder, dims
from drupe_model_builder.linear import linear
from drupe_model_builder.recipe import DecoderRecipe
from drupe_onnx import ir


def gated_mlp(graph: GraphBuilder, recipe: DecoderRecipe, x: ir.Value, layer: int) -> ir.Value:
    """x and the result are [batch, sequence, hidden]."""
    names, bias = recipe.names, recipe.mlp_bias
    wide = [*dims(x)[:-1], recipe.intermediate_size]
    gate, up, down = (recipe.tensor(layer, name) for name in (names.gate, names.up, names.down))
    opened = linear(graph, x, [gate], gate, wide, role="mlp.gate", bias=bias)
    opened = ACTIVATIONS[recipe.activation](graph, opened, recipe.tensor(layer, "mlp.activation"), wide)
    raised = linear(graph, x, [up], up, wide, role="mlp.up", bias=bias)
    product = graph.node("Mul", [opened, raised], recipe.tensor(layer, "mlp/Mul"), wide)
    return linear(graph, product, [down], down, dims(x), role="mlp.down", bias=bias)
