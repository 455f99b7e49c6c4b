"""Sites: the places in a graph where a matrix of weights is used, whatever exporter made the graph."""

from __future__ import annotations

from collections.abc import Iterator

from drupe.api import Record
from drupe_blockquant import Scheme
from drupe_nbits.expressions import Weighted
from drupe_nbits.schemes import assigned
from drupe_onnx import MICROSOFT, ROLE, Array, Cast, Expression, LazyWeight, Transpose, as_type, expression_of, ir

EMBEDDING, HEAD, ROUTER, GATES = "embedding", "head", "router", "gates"
TOKEN_TABLES = (EMBEDDING, "layer_inputs.table")
"""The roles of look-ups of tokens: a builder may have changed the ids before."""
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class Site(Record):
    """A node that uses a matrix of weights.

    weight: the initializer. rows: the matrix as [N, K], a row for each output. transposed: whether the node takes it as
    [K, N]. importance: how much an error in each of the K columns counts, float32, where a pass has measured it.
    result: the value that the rest of the graph reads, in the type that the graph computes in. Where the weights are
    stored in another type, a product has a Cast before it, and a look-up has a Cast after it.
    """

    node: ir.Node
    weight: ir.Value
    rows: Expression
    transposed: bool
    result: ir.Value
    bias: ir.Value | None = None
    importance: Array | None = None

    @property
    def name(self) -> str:
        """The site's name in messages: the name of its weight."""
        return self.weight.name or self.node.name or self.node.op_type

    @property
    def scheme(self) -> Scheme | None:
        """The scheme that an earlier pass has assigned to the site."""
        return assigned(self.node)

    @property
    def is_look_up(self) -> bool:
        return self.node.op_type == "Gather"

    @property
    def matrix(self) -> Expression:
        """The matrix as the node takes it."""
        return transpose(self.rows) if self.transposed else self.rows

    @property
    def activations(self) -> ir.Value:
        """The value that the matrix is multiplied with, or the indices into an embedding. Rewriting may change it."""
        value = self.node.inputs[1 if self.is_look_up else 0]
        assert value is not None
        return value

    @property
    def role(self) -> str:
        """The role that the builder has written into the metadata; a product that is a graph output is the head."""
        if role := self.node.metadata_props.get(ROLE):
            return role
        if self.is_look_up:
            return EMBEDDING
        return HEAD if self.result.is_graph_output() else ""

    @property
    def dtype(self) -> ir.DataType:
        """The floating-point type that the graph computes in here."""
        return self.result.dtype or ir.DataType.FLOAT


def find_sites(graph: ir.Graph) -> list[Site]:
    """Every site of a graph, in its order, without those that stay in floating point.

    Routers stay: they are small, and a rounded router sends tokens to other experts. The gates of linear attention
    stay: they have a row or two for each head, and decide how long a state lasts.
    """
    return [site for node in graph if not _stays(node) for site in _site(node)]


def find_float_sites(graph: ir.Graph) -> list[Site]:
    """The sites that stay in floating point, whatever is asked for."""
    return [site for node in graph if _stays(node) for site in _site(node)]


def _stays(node: ir.Node) -> bool:
    return node.metadata_props.get(ROLE) in (ROUTER, GATES)


def _site(node: ir.Node) -> Iterator[Site]:
    """The site of a node, where it uses a matrix of weights."""
    match (node.domain, node.op_type):
        case ("", "MatMul"):
            yield from _product(node, transposed=True)
        case ("", "Gemm") if _plain_gemm(node):
            bias = node.inputs[2] if len(node.inputs) > 2 else None
            yield from _product(node, transposed=not _integer(node, "transB"), bias=bias)
        case (domain, "FusedMatMul") if domain == MICROSOFT and _plain_fused(node):
            yield from _product(node, transposed=not _integer(node, "transB"))
        case ("", "Gather") if _is_embedding(node):
            yield from _look_up(node)


def _product(node: ir.Node, *, transposed: bool, bias: ir.Value | None = None) -> Iterator[Site]:
    given = node.inputs[1]
    cast = given.producer() if given is not None else None
    weight = cast.inputs[0] if cast is not None and cast.op_type == "Cast" else given
    matrix = _matrix(weight)
    if weight is not None and matrix is not None:
        rows = transpose(without_casts(matrix)) if transposed else without_casts(matrix)
        rows = without_casts(rows)
        importance = rows.importance if isinstance(rows, Weighted) else None
        rows = rows.source if isinstance(rows, Weighted) else rows
        yield Site(node, weight, rows, transposed, node.outputs[0], bias, importance)


def _look_up(node: ir.Node) -> Iterator[Site]:
    weight = node.inputs[0]
    matrix = _matrix(weight)
    if weight is not None and matrix is not None:
        followers = [user.node for user in node.outputs[0].uses()]
        casts = len(followers) == 1 and followers[0].op_type == "Cast" and not node.outputs[0].is_graph_output()
        result = followers[0].outputs[0] if casts else node.outputs[0]
        yield Site(node, weight, without_casts(matrix), False, result)


def replace_rows(site: Site, rows: Expression) -> None:
    """Replace the matrix of a site by `rows` [N, K], stored in the same type.

    The initializer itself is changed, so every other node that uses it gets the new matrix as well.
    """
    dtype = site.weight.dtype
    assert dtype is not None
    stored = as_type(rows, dtype)
    expression = Transpose(stored) if site.transposed else stored
    site.weight.const_value = LazyWeight(site.weight.name, expression)


def weigh(site: Site, importance: Array) -> None:
    """Store how much an error in each column counts: [K], float32, not negative."""
    replace_rows(site, Weighted(site.rows, importance))


def _matrix(weight: ir.Value | None) -> Expression | None:
    """The expression of an initializer that is a matrix of floats."""
    if weight is None or not weight.is_initializer() or weight.dtype not in FLOATS:
        return None
    expression = expression_of(weight)
    return expression if expression is not None and len(expression.shape) == 2 and 0 not in expression.shape else None


def transpose(expression: Expression) -> Expression:
    """The transposed matrix; the transpose of a transpose is the original matrix."""
    return expression.source if isinstance(expression, Transpose) else Transpose(expression)


def without_casts(expression: Expression) -> Expression:
    """The matrix before casts: quantizing reads it directly."""
    while isinstance(expression, Cast) and expression.source.dtype in FLOATS:
        expression = expression.source
    return expression


def _is_embedding(node: ir.Node) -> bool:
    """Whether a Gather looks tokens up. Other tables, such as rotary caches, are not quantized."""
    indices = node.inputs[1]
    looked_up = node.metadata_props.get(ROLE) in TOKEN_TABLES or (indices is not None and indices.is_graph_input())
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
