"""Both ends of a decoder: from token ids to the first hidden states, and from the last ones to logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import BATCH, SEQUENCE, Dims, dims
from drupe_model_builder.parts.head_layer import HeadLayer, head_layer
from drupe_model_builder.parts.linear import Linear, linear
from drupe_model_builder.parts.norm import Norm, norm
from drupe_model_builder.parts.sinusoids import Sinusoids
from drupe_model_builder.parts.sinusoids import table as sinusoid_table

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import Expression, ir


class Embedding(Record):
    """The table of the tokens' first hidden states.

    table: the tensor [vocabulary + spare, width]; spare: how many rows behind those of the vocabulary stand for images
    and take no part. factor: on its rows. inward: a product on them, where their width is not the hidden size. norm:
    behind both. positions: a second table [positions, hidden], whose row at the token's position is added, by its
    tensor or computed; position_count: how many rows it has, and position_offset: how many rows lie before that of the
    first position.
    """

    table: str
    vocab_size: int
    hidden_size: int
    factor: float = 1.0
    norm: Norm | None = None
    positions: str | Sinusoids | None = None
    position_count: int = 0
    position_offset: int = 0
    spare: int = 0
    inward: Linear | None = None

    @property
    def width(self) -> int:
        """How many values a row of the table has."""
        return self.hidden_size if self.inward is None else self.inward.rows.shape[1]

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        yield self.table, (self.vocab_size + self.spare, self.width)
        if self.inward is not None:
            yield from self.inward.tensors()
        if self.norm is not None:
            yield from self.norm.tensors()
        if isinstance(self.positions, str):
            yield self.positions, (self.position_count, self.hidden_size)


class Head(Record):
    """The product that gives logits.

    matrix: its tensor. tied: whether the embedding's table is used instead. bias: a tensor. factor: on the logits.
    softcap: logits become softcap * tanh(logits / softcap); 0 for none. layer: what stands before the product.
    """

    matrix: str
    tied: bool = False
    bias: str | None = None
    factor: float = 1.0
    softcap: float = 0.0
    layer: HeadLayer | None = None

    def tensors(self, vocab_size: int, hidden_size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        if self.layer is not None:
            yield from self.layer.tensors()
        if not self.tied:
            yield self.matrix, (vocab_size, hidden_size if self.layer is None else self.layer.linear.size)
        if self.bias is not None:
            yield self.bias, (vocab_size,)


def embed(graph: GraphBuilder, part: Embedding, ids: ir.Value, positions: ir.Value | None) -> ir.Value:
    """The first hidden states [batch, sequence, hidden]. ids, positions: [batch, sequence]."""
    shape: Dims = [BATCH, SEQUENCE, part.hidden_size]
    name = part.table.removesuffix(".weight")
    rows: Dims = [BATCH, SEQUENCE, part.width]
    x = looked_up(graph, part.table, ids, rows, "embedding", _of_vocabulary(graph, part))
    x = scaled(graph, x, part.factor, name)
    x = x if part.inward is None else linear(graph, part.inward, x, "projection")
    if part.positions is not None:
        assert positions is not None
        if part.position_offset:
            offset = graph.integers(part.position_offset)
            positions = graph.node(
                "Add", [positions, offset], f"{name}/Positions", [BATCH, SEQUENCE], dtype=positions.dtype
            )
        added = _of_positions(graph, part.positions, positions, shape)
        x = graph.node("Add", [x, added], f"{name}/AddPositions", shape)
    return x if part.norm is None else norm(graph, part.norm, x)


def logits(graph: GraphBuilder, part: Head, embedding: Embedding, x: ir.Value) -> ir.Value:
    """float32 [batch, sequence, vocabulary] of the normed hidden states x."""
    shape = [*dims(x)[:-1], embedding.vocab_size]
    x = x if part.layer is None else head_layer(graph, part.layer, x)
    out = _project(graph, part, embedding, x, shape)
    if part.bias is not None:
        out = graph.node("Add", [out, graph.vector(part.bias)], "lm_head/Add", shape)
    out = widened(graph, scaled(graph, out, part.factor, "lm_head"), "lm_head")
    return _capped(graph, out, part.softcap, shape) if part.softcap else out


def drop_all_but_last(graph: GraphBuilder, x: ir.Value, index: ir.Value, name: str) -> ir.Value:
    """The last token's row of x [batch, sequence, ...]: [batch, 1, ...].

    The node is marked, so it can be removed again.
    """
    from drupe_onnx import LAST_TOKEN

    shape = [BATCH, 1, *dims(x)[2:]]
    return graph.node("GatherND", [x, index], f"{name}/LastToken", shape, dtype=x.dtype, role=LAST_TOKEN, batch_dims=1)


def scaled(graph: GraphBuilder, x: ir.Value, factor: float, name: str) -> ir.Value:
    """x times a factor; x itself where the factor is 1."""
    return x if factor == 1.0 else graph.node("Mul", [x, graph.number(factor)], f"{name}/Scale", dims(x))


def widened(graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    """x in float32."""
    from drupe_onnx import ir

    wide = ir.DataType.FLOAT
    return x if x.dtype == wide else graph.node("Cast", [x], f"{name}/Cast", dims(x), dtype=wide, to=wide)


def looked_up(
    graph: GraphBuilder, tensor: str, rows: ir.Value, shape: Dims, role: str, table_of: Expression | None = None
) -> ir.Value:
    """Rows of a table, in the activations' type. table_of: the table where it is not the tensor of that name."""
    table = graph.matrix(tensor, table_of)
    name = tensor.removesuffix(".weight")
    found = graph.node("Gather", [table, rows], f"{name}/Gather", shape, dtype=table.dtype, role=role, axis=0)
    return graph.computable(found)


def _of_positions(graph: GraphBuilder, table: str | Sinusoids, positions: ir.Value, shape: Dims) -> ir.Value:
    """The rows of the tokens' positions."""
    if isinstance(table, Sinusoids):
        return looked_up(graph, table.name, positions, shape, "positions", sinusoid_table(table))
    return looked_up(graph, table, positions, shape, "positions")


def _of_vocabulary(graph: GraphBuilder, part: Embedding) -> Expression | None:
    """The rows of the table that stand for tokens of text; None for all."""
    from drupe_onnx import RowRange

    return RowRange(graph.weights[part.table], 0, part.vocab_size) if part.spare else None


def _project(graph: GraphBuilder, part: Head, embedding: Embedding, x: ir.Value, shape: Dims) -> ir.Value:
    from drupe_onnx import MICROSOFT

    dtype = graph.dtype
    if not part.tied:
        head = graph.matrix(part.matrix, transposed=True)
    elif graph.serves("FusedMatMul", dtype, dtype, domain=MICROSOFT, outputs=[dtype], transB=1):
        table = graph.computable(graph.matrix(embedding.table, _of_vocabulary(graph, embedding)))
        return graph.node(
            "FusedMatMul", [x, table], "lm_head/FusedMatMul", shape, domain=MICROSOFT, role="head", transB=1
        )
    else:
        table_of = _of_vocabulary(graph, embedding) or graph.weights[embedding.table]
        head = graph.matrix("lm_head.weight", table_of, transposed=True)
    return graph.node("MatMul", [x, graph.computable(head)], "lm_head/MatMul", shape, role="head")


def _capped(graph: GraphBuilder, out: ir.Value, softcap: float, shape: Dims) -> ir.Value:
    """softcap * tanh(out / softcap) of float32 logits."""
    from drupe_onnx import ir

    wide = ir.DataType.FLOAT
    cap = graph.number(softcap, wide)
    small = graph.node("Div", [out, cap], "lm_head/Divided", shape, dtype=wide)
    bent = graph.node("Tanh", [small], "lm_head/Tanh", shape, dtype=wide)
    return graph.node("Mul", [bent, cap], "lm_head/Capped", shape, dtype=wide)
