"""Both ends of a decoder: from token ids to the first hidden states, and from the last ones to logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import BATCH, SEQUENCE, Dims, dims
from drupe_model_builder.parts.norm import Norm, norm

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


class Embedding(Record):
    """The table of the tokens' first hidden states.

    table: the tensor [vocabulary, hidden]. factor: on its rows. norm: after the factor. positions: a second table
    [positions, hidden], whose row at the token's position is added; position_count: how many rows it has, and
    position_offset: how many rows lie before that of the first position.
    """

    table: str
    vocab_size: int
    hidden_size: int
    factor: float = 1.0
    norm: Norm | None = None
    positions: str | None = None
    position_count: int = 0
    position_offset: int = 0

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        yield self.table, (self.vocab_size, self.hidden_size)
        if self.norm is not None:
            yield from self.norm.tensors()
        if self.positions is not None:
            yield self.positions, (self.position_count, self.hidden_size)


class Head(Record):
    """The product that gives logits.

    matrix: its tensor. tied: whether the embedding's table is used instead. bias: a tensor. factor: on the logits.
    softcap: logits become softcap * tanh(logits / softcap); 0 for none.
    """

    matrix: str
    tied: bool = False
    bias: str | None = None
    factor: float = 1.0
    softcap: float = 0.0

    def tensors(self, vocab_size: int, hidden_size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        if not self.tied:
            yield self.matrix, (vocab_size, hidden_size)
        if self.bias is not None:
            yield self.bias, (vocab_size,)


def embed(graph: GraphBuilder, part: Embedding, ids: ir.Value, positions: ir.Value | None) -> ir.Value:
    """The first hidden states [batch, sequence, hidden]. ids, positions: [batch, sequence]."""
    shape: Dims = [BATCH, SEQUENCE, part.hidden_size]
    name = part.table.removesuffix(".weight")
    x = looked_up(graph, part.table, ids, shape, "embedding")
    x = scaled(graph, x, part.factor, name)
    if part.positions is not None:
        assert positions is not None
        if part.position_offset:
            offset = graph.integers(part.position_offset)
            positions = graph.node(
                "Add", [positions, offset], f"{name}/Positions", [BATCH, SEQUENCE], dtype=positions.dtype
            )
        learned = looked_up(graph, part.positions, positions, shape, "positions")
        x = graph.node("Add", [x, learned], f"{name}/AddPositions", shape)
    return x if part.norm is None else norm(graph, part.norm, x)


def logits(graph: GraphBuilder, part: Head, embedding: Embedding, x: ir.Value) -> ir.Value:
    """float32 [batch, sequence, vocabulary] of the normed hidden states x."""
    shape = [*dims(x)[:-1], embedding.vocab_size]
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
    return graph.node("GatherND", [x, index], f"{name}/LastToken", shape, role=LAST_TOKEN, batch_dims=1)


def scaled(graph: GraphBuilder, x: ir.Value, factor: float, name: str) -> ir.Value:
    """x times a factor; x itself where the factor is 1."""
    return x if factor == 1.0 else graph.node("Mul", [x, graph.number(factor)], f"{name}/Scale", dims(x))


def widened(graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    """x in float32."""
    from drupe_onnx import ir

    wide = ir.DataType.FLOAT
    return x if x.dtype == wide else graph.node("Cast", [x], f"{name}/Cast", dims(x), dtype=wide, to=wide)


def looked_up(graph: GraphBuilder, tensor: str, rows: ir.Value, shape: Dims, role: str) -> ir.Value:
    """Rows of a table of the checkpoint, in the activations' type."""
    table = graph.matrix(tensor)
    name = tensor.removesuffix(".weight")
    found = graph.node("Gather", [table, rows], f"{name}/Gather", shape, dtype=table.dtype, role=role, axis=0)
    return graph.computable(found)


def _project(graph: GraphBuilder, part: Head, embedding: Embedding, x: ir.Value, shape: Dims) -> ir.Value:
    from drupe_onnx import MICROSOFT

    dtype = graph.dtype
    if not part.tied:
        head = graph.matrix(part.matrix, transposed=True)
    elif graph.serves("FusedMatMul", dtype, dtype, domain=MICROSOFT, outputs=[dtype], transB=1):
        table = graph.computable(graph.matrix(embedding.table))
        return graph.node(
            "FusedMatMul", [x, table], "lm_head/FusedMatMul", shape, domain=MICROSOFT, role="head", transB=1
        )
    else:
        head = graph.matrix("lm_head.weight", graph.weights[embedding.table], transposed=True)
    return graph.node("MatMul", [x, graph.computable(head)], "lm_head/MatMul", shape, role="head")


def _capped(graph: GraphBuilder, out: ir.Value, softcap: float, shape: Dims) -> ir.Value:
    """softcap * tanh(out / softcap) of float32 logits."""
    from drupe_onnx import ir

    wide = ir.DataType.FLOAT
    cap = graph.number(softcap, wide)
    small = graph.node("Div", [out, cap], "lm_head/Divided", shape, dtype=wide)
    bent = graph.node("Tanh", [small], "lm_head/Tanh", shape, dtype=wide)
    return graph.node("Mul", [bent, cap], "lm_head/Capped", shape, dtype=wide)
