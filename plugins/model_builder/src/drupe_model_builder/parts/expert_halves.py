"""Experts with an activation that no operator for experts has: a node for gate and up, and one for down.

The operator has two matrices, with a hidden state on both sides. Each node here has weights in one of them and identity
matrices in the other, which all layers share. Each token has a row for each expert that it runs. On a processor, such a
layer takes 1.2 times as long for one token as it would in one node, and 1.8 times as long for 32 tokens (measured at
4 bits with 64 experts of 704 values, 8 for each token, and a hidden size of 2816).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import ModelError
from drupe_model_builder.dimensions import Dims, dims
from drupe_model_builder.parts.activations import activate
from drupe_model_builder.parts.experts import Experts, of_one_type, refuse_unserved, stacked
from drupe_model_builder.parts.lone_experts import ALONE, identities, lone_experts
from drupe_model_builder.parts.norm import norm
from drupe_model_builder.parts.router import weights_of_chosen
from drupe_model_builder.parts.slots import by_token, in_slots, one_hot, weight_column

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


def expert_halves(graph: GraphBuilder, part: Experts, x: ir.Value) -> ir.Value:
    """x and the result are [batch, sequence, hidden].

    Raises Lacking where the target has no operator for it, ModelError where experts are too wide.
    """
    name, chosen, down = part.name, part.router.chosen, part.down.rows[0].expression(graph.weights)
    hidden, width = down.shape
    if 2 * width > hidden:
        raise ModelError(
            f"experts of {width} values with the activation {part.activation} are not supported: more than half of the "
            f"hidden size {hidden}",
            cure="choose another model",
        )
    refuse_unserved(graph, ALONE)
    weights, places = weights_of_chosen(graph, part.router, x)
    inner = x if part.before is None else norm(graph, part.before, x)
    batch, sequence = dims(inner)[:2]
    apart: Dims = [batch, sequence, chosen, hidden]
    column = graph.node("Unsqueeze", [inner, graph.integers([2])], f"{name}/Column", [batch, sequence, 1, hidden])
    rows = graph.node("Expand", [column, graph.integers([1, 1, chosen, 1])], f"{name}/Copies", apart)
    logits = one_hot(graph, places, part.router.experts, name)
    raised = _raised(graph, part, in_slots(graph, rows, name), logits, width)
    lowered = _lowered(graph, part, _activated(graph, part, raised, width), logits)
    lowered = by_token(graph, lowered, inner, chosen, name)
    weighted = graph.node("Mul", [lowered, weight_column(graph, weights, name)], f"{name}/Weighted", apart)
    return graph.node("ReduceSum", [weighted, graph.integers([2])], f"{name}/Sum", dims(inner), keepdims=0)


def _raised(graph: GraphBuilder, part: Experts, rows: ir.Value, logits: ir.Value, width: int) -> ir.Value:
    """The products with gate and up, one after the other, at the beginning of each row."""
    from drupe_onnx import Concat

    assert part.gate is not None
    pairs = [
        Concat(tuple(of_one_type([each.expression(graph.weights) for each in pair])))
        for pair in zip(part.gate.rows, part.up.rows, strict=True)
    ]
    weight = stacked(graph, f"{part.name}.gate_up_proj", pairs)
    pair = (weight, identities(graph, part.router, dims(rows)[-1], 2 * width))
    return lone_experts(graph, part.router, f"{part.name}.gate_up_proj", rows, logits, pair)


def _activated(graph: GraphBuilder, part: Experts, raised: ir.Value, width: int) -> ir.Value:
    """The activation of the gate times up, with zeros up to the hidden size."""
    assert part.activation is not None
    name, hidden = part.name, dims(raised)[-1]
    shape: Dims = [*dims(raised)[:-1], width]

    def part_of(called: str, start: int) -> ir.Value:
        inputs = [raised, *(graph.integers([number]) for number in (start, start + width, 2))]
        return graph.node("Slice", inputs, f"{name}/{called}", shape)

    gate = activate(graph, part.activation, part_of("Gate", 0), f"{name}/Activation")
    out = graph.node("Mul", [gate, part_of("Up", width)], f"{name}/Mul", shape)
    assert isinstance(hidden, int)
    return graph.node("Pad", [out, graph.integers([0, 0, 0, 0, 0, hidden - width])], f"{name}/Pad", dims(raised))


def _lowered(graph: GraphBuilder, part: Experts, activated: ir.Value, logits: ir.Value) -> ir.Value:
    """The products with down."""
    weight = stacked(graph, f"{part.name}.down_proj", [rows.expression(graph.weights) for rows in part.down.rows])
    pair = (identities(graph, part.router, dims(weight)[-1], dims(activated)[-1]), weight)
    return lone_experts(graph, part.router, f"{part.name}.down_proj", activated, logits, pair)
