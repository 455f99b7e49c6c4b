"""Nodes in which each row runs one expert, with the weight 1, and one of the expert's two matrices is an identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from drupe_model_builder.dimensions import dims
from drupe_model_builder.parts.experts import EXPERTS, OPERATOR
from drupe_model_builder.parts.router import Router

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir

ALONE: dict[str, Any] = {"k": 1, "activation_type": "identity", "normalize_routing_weights": 1}
"""The attributes of these nodes."""


def lone_experts(
    graph: GraphBuilder, router: Router, name: str, rows: ir.Value, logits: ir.Value, weights: Sequence[ir.Value]
) -> ir.Value:
    """A node that takes each row to its expert. logits: they choose it. weights: of the node's two matrices."""
    from drupe_onnx import CHOSEN, MICROSOFT

    inputs = [rows, logits, weights[0], None, weights[1]]
    out = graph.node(OPERATOR, inputs, name, dims(rows), domain=MICROSOFT, role=EXPERTS, **ALONE)
    node = out.producer()
    assert node is not None
    node.metadata_props[CHOSEN] = str(router.chosen)
    return out


def identities(graph: GraphBuilder, router: Router, rows: int | str, columns: int | str) -> ir.Value:
    """The tensor [experts, rows, columns] of identity matrices, which all layers share."""
    from drupe_onnx import Identities, Reshape

    assert isinstance(rows, int) and isinstance(columns, int)
    count = router.experts
    matrices = Identities(count, rows, columns, graph.dtype)
    return graph.initializer(f"identities.{count}x{rows}x{columns}", Reshape(matrices, (count, rows, columns)))
