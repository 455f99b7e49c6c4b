"""Experts whose input the router's weights multiply, not their result, as in Llama 4.

The operator weighs results only, so each token has a row for each expert that it runs, times the weight, and the
operator runs one expert with the weight 1 for each row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drupe_model_builder.dimensions import dims
from drupe_model_builder.parts.experts import Experts, run_experts, with_shared
from drupe_model_builder.parts.router import weights_of_chosen
from drupe_model_builder.parts.slots import by_token, in_slots, one_hot, weight_column

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir

ONE: dict[str, Any] = {"k": 1}
"""Each row runs one expert, with the weight 1."""


def experts_of_weighted_inputs(graph: GraphBuilder, part: Experts, x: ir.Value) -> ir.Value:
    """x and the result are [batch, sequence, hidden]. Raises Lacking where the target has no operator for it."""
    from drupe_onnx import CHOSEN

    name, chosen, (batch, sequence, hidden) = part.name, part.router.chosen, dims(x)
    weights, places = weights_of_chosen(graph, part.router, x)
    column = graph.node("Unsqueeze", [x, graph.integers([2])], f"{name}/Column", [batch, sequence, 1, hidden])
    inputs = [column, weight_column(graph, weights, name)]
    weighted = graph.node("Mul", inputs, f"{name}/WeightedInput", [batch, sequence, chosen, hidden])
    logits = one_hot(graph, places, part.router.experts, name)
    out = run_experts(graph, part, in_slots(graph, weighted, name), logits, **ONE)
    node = out.producer()
    assert node is not None
    node.metadata_props[CHOSEN] = str(chosen)
    apart = by_token(graph, out, x, chosen, name)
    total = graph.node("ReduceSum", [apart, graph.integers([2])], f"{name}/Sum", dims(x), keepdims=0)
    return with_shared(graph, part, total, x)
