"""Norms: the root-mean-square norms of a graph, and their weights."""

from __future__ import annotations

from collections.abc import Mapping

from drupe.api import Record
from drupe_equalize.matrix_replacement import put_vector
from drupe_onnx import MICROSOFT, Expression, constant_of, ir

RMS_NORMS: Mapping[tuple[str, str], int] = {
    ("", "SimplifiedLayerNormalization"): 1,
    ("", "RMSNormalization"): 1,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): 2,
}
"""Operators that divide by the root of the mean square, and the place of the input that holds the norm's weight."""


class Norm(Record):
    """A root-mean-square norm. weight: [K], which the normed values are multiplied with."""

    node: ir.Node
    weight: Expression

    @property
    def output(self) -> ir.Value:
        return self.node.outputs[0]

    @property
    def name(self) -> str:
        return self.node.name or self.node.op_type


def norm_at(node: ir.Node) -> Norm | None:
    """The norm that a node computes over the last axis with a constant weight; None for other nodes."""
    place = RMS_NORMS.get((node.domain, node.op_type))
    if place is None or len(node.inputs) <= place:
        return None
    weight = constant_of(node.inputs[place])
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    return Norm(node, weight) if weight is not None and len(weight.shape) == 1 and axis == -1 else None


def set_norm_weight(graph: ir.Graph, norm: Norm, weight: Expression, label: str) -> None:
    """Replace the weight of a norm; other norms that share the old weight keep it."""
    place = RMS_NORMS[norm.node.domain, norm.node.op_type]
    put_vector(graph, norm.node, place, weight, f"{norm.name}/{label}")
