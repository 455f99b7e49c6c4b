"""Norms: those of a graph whose weights can take factors, and these weights."""

from __future__ import annotations

from collections.abc import Mapping

from drupe.api import Record
from drupe_equalize.matrix_replacement import put_vector
from drupe_onnx import MICROSOFT, Affine, Expression, as_type, constant_of, ir

RMS_NORMS: Mapping[tuple[str, str], int] = {
    ("", "SimplifiedLayerNormalization"): 1,
    ("", "RMSNormalization"): 1,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): 2,
}
"""Operators that divide by the root of the mean square, and the place of the input that holds the norm's weight."""
LAYER_NORMS: Mapping[tuple[str, str], int] = {
    ("", "LayerNormalization"): 1,
    (MICROSOFT, "SkipLayerNormalization"): 2,
}
"""Operators that also subtract the mean. Behind the weight may stand a bias, which is added to the result."""
WEIGHTS = {**RMS_NORMS, **LAYER_NORMS}


class Norm(Record):
    """A norm. weight: [K], which normed values are multiplied with. bias: [K], which is added after that, if any."""

    node: ir.Node
    weight: Expression
    bias: Expression | None = None

    @property
    def output(self) -> ir.Value:
        return self.node.outputs[0]

    @property
    def name(self) -> str:
        return self.node.name or self.node.op_type


def norm_at(node: ir.Node) -> Norm | None:
    """The root-mean-square norm that a node computes over the last axis with a constant weight; None for others."""
    return _norm(node) if (node.domain, node.op_type) in RMS_NORMS else None


def scalable_norm_at(node: ir.Node) -> Norm | None:
    """The norm of either kind that a node computes over the last axis with constants; None for other nodes."""
    found, place = _norm(node), LAYER_NORMS.get((node.domain, node.op_type))
    if found is None or place is None or len(node.inputs) <= place + 1 or node.inputs[place + 1] is None:
        return found
    bias = constant_of(node.inputs[place + 1])
    return None if bias is None or bias.shape != found.weight.shape else Norm(node, found.weight, bias)


def _norm(node: ir.Node) -> Norm | None:
    """The norm that a node computes, without a bias."""
    place = WEIGHTS.get((node.domain, node.op_type))
    if place is None or len(node.inputs) <= place:
        return None
    weight = constant_of(node.inputs[place])
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    return Norm(node, weight) if weight is not None and len(weight.shape) == 1 and axis == -1 else None


def set_norm_weight(graph: ir.Graph, norm: Norm, weight: Expression, label: str) -> None:
    """Replace the weight of a norm; other norms that share the old weight keep it."""
    put_vector(graph, norm.node, _place(norm), weight, f"{norm.name}/{label}")


def scale_norm(graph: ir.Graph, norm: Norm, factors: Expression) -> None:
    """Multiply what a norm gives by `factors` [K]."""
    set_norm_weight(graph, norm, _times(norm.weight, factors), "scaled")
    if norm.bias is not None:
        put_vector(graph, norm.node, _place(norm) + 1, _times(norm.bias, factors), f"{norm.name}/scaled_bias")


def _place(norm: Norm) -> int:
    return WEIGHTS[norm.node.domain, norm.node.op_type]


def _times(vector: Expression, factors: Expression) -> Expression:
    return Affine(as_type(vector, ir.DataType.FLOAT), scale=as_type(factors, ir.DataType.FLOAT))
