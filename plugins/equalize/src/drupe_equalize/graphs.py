"""What all passes here do to a graph: read its constant vectors, put other weights in the place of old ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drupe_nbits import Site, replace_rows
from drupe_onnx import Affine, Cast, Expression, Transpose, expression_of, initializer, ir

MICROSOFT = "com.microsoft"
RMS_NORMS: Mapping[tuple[str, str], int] = {
    ("", "SimplifiedLayerNormalization"): 1,
    ("", "RMSNormalization"): 1,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): 2,
}
"""Operators that divide by the root of the mean square, and the place of the input that they then multiply with."""


@dataclass(frozen=True)
class Norm:
    """A root-mean-square norm: `weight` is what it multiplies the normed values with, [K]."""

    node: ir.Node
    weight: Expression

    @property
    def output(self) -> ir.Value:
        return self.node.outputs[0]

    @property
    def name(self) -> str:
        return self.node.name or self.node.op_type


def norm_at(node: ir.Node) -> Norm | None:
    """The norm that a node is: one over the last axis, with a constant weight."""
    place = RMS_NORMS.get((node.domain, node.op_type))
    if place is None or len(node.inputs) <= place:
        return None
    weight = constant_of(node.inputs[place])
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    return Norm(node, weight) if weight is not None and len(weight.shape) == 1 and axis == -1 else None


def set_norm_weight(graph: ir.Graph, norm: Norm, weight: Expression, label: str) -> None:
    """Let a norm multiply with `weight`; other norms that share the old one keep it."""
    place = RMS_NORMS[norm.node.domain, norm.node.op_type]
    old = norm.node.inputs[place]
    assert old is not None and old.dtype is not None
    norm.node.replace_input_with(place, constant(graph, f"{norm.name}/{label}", stored(weight, old.dtype)))


def constant_of(value: ir.Value | None) -> Expression | None:
    """The expression of an initializer, also of one behind a Cast; None for what is computed or fed."""
    if value is None:
        return None
    producer = value.producer()
    if producer is not None and producer.op_type == "Cast":
        return constant_of(producer.inputs[0])
    return expression_of(value) if value.is_initializer() else None


def constant(graph: ir.Graph, name: str, expression: Expression) -> ir.Value:
    """An initializer of that content; the name gets a number where it is taken."""
    wanted, number = name, 1
    while (existing := graph.initializers.get(name)) is not None:
        if expression_of(existing) == expression:
            return existing
        number += 1
        name = f"{wanted}_{number}"
    value = initializer(name, expression)
    graph.register_initializer(value)
    return value


def stored(expression: Expression, dtype: ir.DataType) -> Expression:
    """`expression` in the type that the graph keeps it in."""
    return expression if expression.dtype == dtype else Cast(expression, dtype)


def scaled_columns(matrix: Expression, scale: Expression) -> Expression:
    """Each column times a number, in float32."""
    return Affine(stored(matrix, ir.DataType.FLOAT), scale=stored(scale, ir.DataType.FLOAT))


def put_rows(graph: ir.Graph, rows: list[tuple[Site, Expression]]) -> None:
    """Give each site other rows [N, K].

    Sites that share a weight go on sharing it where they get equal rows; otherwise each gets a weight of its own.
    """
    users: dict[int, list[tuple[Site, Expression]]] = {}
    for site, matrix in rows:
        users.setdefault(id(site.weight), []).append((site, matrix))
    for group in users.values():
        site, matrix = group[0]
        if _uses(site.weight) == len(group) and all(other == matrix for _, other in group):
            replace_rows(site, matrix)
        else:
            for site, matrix in group:
                _give_own(graph, site, matrix)


def _uses(weight: ir.Value) -> int:
    """By how many nodes a weight is used, a Cast not counted but who uses its result."""
    return sum(len(use.node.outputs[0].uses()) if use.node.op_type == "Cast" else 1 for use in weight.uses())


def _give_own(graph: ir.Graph, site: Site, rows: Expression) -> None:
    """Let a site use a weight that no other one does, kept in the same type."""
    dtype = site.weight.dtype
    assert dtype is not None
    kept = stored(rows, dtype)
    name = site.node.name or site.name
    value = constant(graph, f"{name}/weight", Transpose(kept) if site.transposed else kept)
    place = 0 if site.is_look_up else 1
    given = site.node.inputs[place]
    cast = given.producer() if given is not None else None
    if cast is not None:
        copy = ir.Node("", "Cast", [value], list(cast.attributes.values()), name=f"{name}/weight/Cast")
        copy.outputs[0].name, copy.outputs[0].type = f"{name}/weight/Cast", ir.TensorType(site.dtype)
        copy.outputs[0].shape = value.shape
        graph.insert_before(site.node, copy)
        value = copy.outputs[0]
    site.node.replace_input_with(place, value)
