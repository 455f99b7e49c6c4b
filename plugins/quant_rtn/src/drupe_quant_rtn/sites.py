"""Sites: the places in a graph where a matrix of weights is used, whatever exporter made the graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from drupe_onnx import Cast, Expression, Transpose, expression_of, ir

ROLE = "drupe.role"
EMBEDDING, HEAD = "embedding", "head"
MICROSOFT = "com.microsoft"
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Site:
    """A node that uses a matrix of weights.

    activations: what it is multiplied with, or the indices into an embedding. weight: the initializer. cast: the node
    between the two, where the weights are stored in another type. rows: the matrix as [N, K], a row for each output.
    """

    node: ir.Node
    activations: ir.Value
    weight: ir.Value
    cast: ir.Node | None
    rows: Expression
    bias: ir.Value | None = None

    @property
    def role(self) -> str:
        """What the builder says it is; a product that is a graph output is the head."""
        if role := self.node.metadata_props.get(ROLE):
            return role
        if self.node.op_type == "Gather":
            return EMBEDDING
        return HEAD if self.node.outputs[0].is_graph_output() else ""

    @property
    def dtype(self) -> ir.DataType:
        """The floating-point type that the node computes in."""
        computed = self.weight.dtype if self.cast is None else self.cast.outputs[0].dtype
        assert computed is not None
        return computed


def find_sites(graph: ir.Graph) -> list[Site]:
    """Every site of a graph, in its order."""
    return [site for node in graph for site in _site(node)]


def _site(node: ir.Node) -> Iterator[Site]:
    """The site that a node is, if it is one."""
    match (node.domain, node.op_type):
        case ("", "MatMul"):
            transposed, bias = False, None
        case ("", "Gemm") if _plain_gemm(node):
            transposed = bool(_integer(node, "transB"))
            bias = node.inputs[2] if len(node.inputs) > 2 else None
        case (domain, "FusedMatMul") if domain == MICROSOFT and _plain_fused(node):
            transposed, bias = bool(_integer(node, "transB")), None
        case ("", "Gather") if _is_embedding(node):
            yield from _with_weight(node, node.inputs[1], node.inputs[0], True, None)
            return
        case _:
            return
    yield from _with_weight(node, node.inputs[0], node.inputs[1], transposed, bias)


def _with_weight(
    node: ir.Node, activations: ir.Value | None, given: ir.Value | None, transposed: bool, bias: ir.Value | None
) -> Iterator[Site]:
    if given is None or activations is None:
        return
    cast = given.producer()
    if cast is not None and cast.op_type != "Cast":
        return
    weight = given if cast is None else cast.inputs[0]
    if weight is None or not weight.is_initializer() or weight.dtype not in FLOATS:
        return
    expression = expression_of(weight)
    if expression is None or len(expression.shape) != 2 or 0 in expression.shape:
        return
    rows = expression if transposed else transpose(expression)
    yield Site(node, activations, weight, cast, without_casts(rows), bias)


def transpose(expression: Expression) -> Expression:
    """The transposed matrix; a transposed transpose is the matrix itself."""
    return expression.source if isinstance(expression, Transpose) else Transpose(expression)


def without_casts(expression: Expression) -> Expression:
    """The matrix before it was cast: quantizing needs no step in between."""
    while isinstance(expression, Cast) and expression.source.dtype in FLOATS:
        expression = expression.source
    return expression


def _is_embedding(node: ir.Node) -> bool:
    """Whether a Gather looks tokens up; other tables (rotary caches) stay as they are."""
    indices = node.inputs[1]
    looked_up = node.metadata_props.get(ROLE) == EMBEDDING or (indices is not None and indices.is_graph_input())
    return looked_up and _integer(node, "axis") == 0


def _plain_gemm(node: ir.Node) -> bool:
    plain = _number(node, "alpha", 1.0) == 1.0 and _number(node, "beta", 1.0) == 1.0
    return plain and not _integer(node, "transA")


def _plain_fused(node: ir.Node) -> bool:
    flags = ("transA", "transBatchA", "transBatchB")
    return _number(node, "alpha", 1.0) == 1.0 and not any(_integer(node, name) for name in flags)


def _integer(node: ir.Node, name: str) -> int:
    return node.attributes[name].as_int() if name in node.attributes else 0


def _number(node: ir.Node, name: str, default: float) -> float:
    return node.attributes[name].as_float() if name in node.attributes else default
