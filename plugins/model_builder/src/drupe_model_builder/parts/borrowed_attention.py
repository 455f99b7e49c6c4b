"""BorrowedAttention: attention over the keys and values of an earlier layer, as in Gemma 3n and Gemma 4.

GroupQueryAttention computes it when it gets no new keys and values, and the earlier layer's present ones as past.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from drupe.api import Record
from drupe_model_builder.dimensions import BATCH, Dims, dims
from drupe_model_builder.parts.linear import Linear, linear
from drupe_model_builder.parts.norm import Norm, norm
from drupe_model_builder.parts.required import required
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.split import heads, joined
from drupe_model_builder.parts.state import KeyValueState

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_model_builder.shared import Shared
    from drupe_onnx import ir

OPERATOR = "GroupQueryAttention"


class BorrowedAttention(Record):
    """Attention of a layer that has queries only.

    name: the prefix of its nodes. source: the keys and values that it reads. query_norm: of each head's query. The
    other fields are those of `Attention`.
    """

    name: str
    source: KeyValueState
    query: Linear
    output: Linear
    heads: int
    scale: float
    rotary: Rotary
    query_norm: Norm
    window: int | None = None
    both_ways: bool = False

    @property
    def states(self) -> tuple[KeyValueState, ...]:
        """It keeps nothing of its own."""
        return ()

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for part in (self.query, self.query_norm, self.output):
            yield from part.tensors()


def borrowed_attention(
    graph: GraphBuilder, part: BorrowedAttention, x: ir.Value, shared: Shared, dropped: ir.Value | None
) -> ir.Value:
    """The result for x [batch, sequence, hidden]. dropped: the place of the only token that x still has; None for all.

    Its query is the last one: the operator counts the places of queries from the end.
    """
    source, lengths = part.source, shared.lengths
    query = _normed(graph, part, linear(graph, part.query, x, "attention.query"))
    query = _rotated(graph, part, query, shared, dropped)
    nothing = _nothing(graph, part, query)
    key, value = shared.states.present(source)
    attributes: dict[str, Any] = {"num_heads": part.heads, "kv_num_heads": source.heads, "scale": part.scale}
    inputs: list[ir.Value | None] = [query, nothing, nothing, key, value]
    inputs += [lengths.last_keys(), lengths.total_length()]
    if part.both_ways:
        attributes["causal"] = 0
        inputs += [None, None, None, shared.windows.of(part.window)] if part.window is not None else []
    elif part.window is not None:
        attributes["local_window_size"] = part.window
    outputs: list[tuple[ir.DataType, Dims]] = [(graph.dtype, dims(query))]
    (out,) = required(graph, OPERATOR, inputs, f"{part.name}/{OPERATOR}", outputs, "attention", **attributes)
    return linear(graph, part.output, out, "attention.output")


def _normed(graph: GraphBuilder, part: BorrowedAttention, query: ir.Value) -> ir.Value:
    """The norm of each head."""
    name = part.query_norm.name
    return joined(graph, norm(graph, part.query_norm, heads(graph, query, part.heads, name)), name)


def _rotated(
    graph: GraphBuilder, part: BorrowedAttention, query: ir.Value, shared: Shared, dropped: ir.Value | None
) -> ir.Value:
    """The query [batch, sequence, heads * head_dim], rotated by a node: the operator would want keys to rotate, too."""
    from drupe_onnx import LAST_TOKEN, MICROSOFT

    positions = shared.lengths.positions
    if dropped is not None:
        positions = graph.node(
            "GatherND",
            [positions, dropped],
            f"{part.name}/LastPosition",
            [BATCH, 1],
            dtype=positions.dtype,
            role=LAST_TOKEN,
            batch_dims=1,
        )
    attributes: dict[str, Any] = {"interleaved": 1} if part.rotary.interleaved else {}
    if part.rotary.width != part.source.head_dim:
        attributes |= {"num_heads": part.heads, "rotary_embedding_dim": part.rotary.width}
    inputs = [query, positions, *shared.tables.of(part.rotary, part.rotary.width // 2)]
    return graph.node("RotaryEmbedding", inputs, f"{part.name}/Rotate", dims(query), domain=MICROSOFT, **attributes)


def _nothing(graph: GraphBuilder, part: BorrowedAttention, query: ir.Value) -> ir.Value:
    """Keys or values of no token: [batch, 0, heads * head_dim]."""
    width = part.source.heads * part.source.head_dim
    inputs = [query, graph.integers([0, 0]), graph.integers([0, width]), graph.integers([1, 2])]
    return graph.node("Slice", inputs, f"{part.name}/Nothing", [BATCH, 0, width])
