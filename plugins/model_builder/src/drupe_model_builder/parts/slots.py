"""Slots: a row for each expert that a token runs, where the operator of the experts would combine them otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe_model_builder.dimensions import Dims, dims
from drupe_model_builder.parts.router import NEVER

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


def in_slots(graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    """x [batch, sequence, chosen, hidden] as [batch, sequence * chosen, hidden]."""
    batch, sequence, chosen, hidden = dims(x)
    shape: Dims = [batch, f"{sequence}*{chosen}", hidden]
    assert isinstance(hidden, int)
    return graph.node("Reshape", [x, graph.integers([0, -1, hidden])], f"{name}/Slots", shape)


def by_token(graph: GraphBuilder, x: ir.Value, like: ir.Value, chosen: int, name: str) -> ir.Value:
    """What `in_slots` made, as it was before. like: [batch, sequence, hidden]."""
    batch, sequence, hidden = dims(like)
    assert isinstance(hidden, int)
    apart: Dims = [batch, sequence, chosen, hidden]
    return graph.node("Reshape", [x, graph.integers([0, -1, chosen, hidden])], f"{name}/Apart", apart)


def one_hot(graph: GraphBuilder, places: ir.Value, experts: int, name: str) -> ir.Value:
    """Logits [slots, experts] that choose one expert for each slot. places: their numbers, in the slots' order."""
    import numpy as np

    from drupe_onnx import Array, ir

    flat = graph.node("Reshape", [places, graph.integers([-1])], f"{name}/Places", ["slots"], dtype=ir.DataType.INT64)
    values = graph.initializer("constant/chosen", Array(np.array([NEVER, 0.0], np.float32)))
    inputs = [flat, graph.integers([experts]), values]
    logits = graph.node("OneHot", inputs, f"{name}/OneHot", ["slots", experts], dtype=ir.DataType.FLOAT, axis=-1)
    if graph.dtype == ir.DataType.FLOAT:
        return logits
    return graph.node("Cast", [logits], f"{name}/Logits", ["slots", experts], to=graph.dtype)


def weight_column(graph: GraphBuilder, weights: ir.Value, name: str) -> ir.Value:
    """The weights [batch, sequence, chosen] of the router as [batch, sequence, chosen, 1], in the activations' type."""
    if weights.dtype != graph.dtype:
        weights = graph.node("Cast", [weights], f"{name}/Weights", dims(weights), to=graph.dtype)
    return graph.node("Unsqueeze", [weights, graph.integers([-1])], f"{name}/WeightColumn", [*dims(weights), 1])
