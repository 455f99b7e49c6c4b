"""Lengths of sequences and positions of tokens, computed in the graph from the attention mask."""

from __future__ import annotations

from drupe_model_builder.dimensions import BATCH, SEQUENCE, TOTAL
from drupe_model_builder.equal_lengths import refuse_unequal
from drupe_model_builder.graph import GraphBuilder
from drupe_onnx import ir

INT32, INT64 = ir.DataType.INT32, ir.DataType.INT64


class Lengths:
    """The length of each row of the batch, from attention_mask [batch, total], whose padding is on the right.

    Past and new tokens count together. After a padded prompt, a row's mask has zeros in the middle. The sum of the mask
    is still the number of the row's tokens, because attention writes each new token after the row's own last token.
    """

    def __init__(self, graph: GraphBuilder, *, positions: bool, equal: bool = False) -> None:
        """equal: whether rows of unequal lengths are refused when the graph runs."""
        self._graph = graph
        self.ids = graph.input("input_ids", INT64, [BATCH, SEQUENCE])
        mask = graph.input("attention_mask", INT64, [BATCH, TOTAL])
        mask = refuse_unequal(graph, mask) if equal else mask
        self._positions = graph.input("position_ids", INT64, [BATCH, SEQUENCE]) if positions else None
        name = "attention_mask"
        count = graph.node("ReduceSum", [mask, graph.integers([1])], f"{name}/Count", [BATCH], dtype=INT64, keepdims=0)
        self._last = graph.node("Sub", [count, graph.integers([1])], f"{name}/Last", [BATCH], dtype=INT64)
        self._last_keys = graph.node("Cast", [self._last], f"{name}/LastKeys", [BATCH], dtype=INT32, to=INT32)
        shape = graph.node("Shape", [mask], f"{name}/Shape", [2], dtype=INT64)
        total = graph.node("Gather", [shape, graph.integers(1)], f"{name}/Total", [], dtype=INT64, axis=0)
        self._total = graph.node("Cast", [total], f"{name}/TotalLength", [], dtype=INT32, to=INT32)

    def last_keys(self) -> ir.Value:
        """int32 [batch]: the index of each row's last token, which GroupQueryAttention calls seqlens_k."""
        return self._last_keys

    def total(self) -> ir.Value:
        """int32 scalar: the length of the longest row."""
        return self._total

    def positions(self) -> ir.Value:
        """int64 [batch, sequence]: the input position_ids, which exists only if the graph rotates outside attention."""
        assert self._positions is not None
        return self._positions

    def last_tokens(self) -> ir.Value:
        """int64 [batch, 1, 1]: the place of each row's last token in input_ids, an index for GatherND.

        In a prompt it is the end of the row. After a past, rows are not padded, and it is the end of input_ids.
        """
        graph, name = self._graph, "last_token"
        width = graph.node("Shape", [self.ids], f"{name}/Width", [1], dtype=INT64, start=1, end=2)
        end = graph.node("Sub", [width, graph.integers([1])], f"{name}/End", [1], dtype=INT64)
        index = graph.node("Min", [self._last, end], f"{name}/Index", [BATCH], dtype=INT64)
        return graph.node("Unsqueeze", [index, graph.integers([1, 2])], f"{name}/Indices", [BATCH, 1, 1], dtype=INT64)
