"""Lengths of sequences and positions of tokens, computed in the graph from the attention mask."""

from __future__ import annotations

import functools

from drupe_model_builder.dimensions import BATCH, SEQUENCE, TOTAL, Dims, dims
from drupe_model_builder.graph import GraphBuilder
from drupe_model_builder.later_padding import refuse_later_padding
from drupe_onnx import PADDING, POSITIONS, ir

INT32, INT64 = ir.DataType.INT32, ir.DataType.INT64
ALL = 2**62
"""The end of a slice that goes to the end of its axis."""


class Lengths:
    """The length of each row of the batch, from attention_mask [batch, total].

    Past and new tokens count together. Attention wants each row's tokens first and padding behind them, so a prompt
    that is padded on the left is arranged anew behind the embedding. After a padded prompt, a row's mask has zeros at
    the beginning or in the middle. The sum of the mask is still the number of the row's tokens, because attention
    writes each new token after the row's own last token.

    A recurrence wants padding first instead, where its states are still zeros. Then all layers get the tokens in this
    order, and only attention's operator gets them in its own.
    """

    def __init__(self, graph: GraphBuilder, *, positions: bool, recurrent: bool = False, past: bool = True) -> None:
        """recurrent: whether there are states that take in every token. past: whether there are caches; without them
        the positions follow from the mask.
        """
        self._graph = graph
        self._recurrent = recurrent
        self.ids = graph.input("input_ids", INT64, [BATCH, SEQUENCE])
        mask = graph.input("attention_mask", INT64, [BATCH, TOTAL if past else SEQUENCE])
        if recurrent:
            mask = refuse_later_padding(graph, mask, self.ids, first_too=not self._arranges)
        self._mask = mask
        self._positions = graph.input("position_ids", INT64, [BATCH, SEQUENCE]) if positions and past else None
        name = "attention_mask"
        self.count = count = graph.node(
            "ReduceSum", [mask, graph.integers([1])], f"{name}/Count", [BATCH], dtype=INT64, keepdims=0
        )
        self._last = graph.node("Sub", [count, graph.integers([1])], f"{name}/Last", [BATCH], dtype=INT64)
        self._last_keys = graph.node("Cast", [self._last], f"{name}/LastKeys", [BATCH], dtype=INT32, to=INT32)
        shape = graph.node("Shape", [mask], f"{name}/Shape", [2], dtype=INT64)
        self.total = graph.node("Gather", [shape, graph.integers(1)], f"{name}/Total", [], dtype=INT64, axis=0)
        self._total = graph.node("Cast", [self.total], f"{name}/TotalLength", [], dtype=INT32, to=INT32)

    def last_keys(self) -> ir.Value:
        """int32 [batch]: the index of each row's last token, which GroupQueryAttention calls seqlens_k."""
        return self._last_keys

    def total_length(self) -> ir.Value:
        """int32 scalar: the length of the longest row."""
        return self._total

    @functools.cached_property
    def width(self) -> ir.Value:
        """int64 [1]: how many tokens each row of input_ids has, padding included."""
        return self._graph.node("Shape", [self.ids], "input_ids/Width", [1], dtype=INT64, start=1, end=2)

    @functools.cached_property
    def width_number(self) -> ir.Value:
        """The same as a scalar."""
        graph = self._graph
        return graph.node("Squeeze", [self.width, graph.integers([0])], "input_ids/WidthNumber", [], dtype=INT64)

    @property
    def given_positions(self) -> ir.Value:
        """int64 [batch, sequence]: the input position_ids, or without a past the positions that the mask gives."""
        return self._positions if self._positions is not None else self._counted

    @functools.cached_property
    def _counted(self) -> ir.Value:
        """int64 [batch, sequence]: how many tokens stand before each token of its row; 0 for padding before them."""
        graph, name = self._graph, "attention_mask"
        inputs = [self._mask, graph.integers(1)]
        until = graph.node("CumSum", inputs, f"{name}/Until", [BATCH, SEQUENCE], dtype=INT64)
        before = graph.node("Sub", [until, graph.integers(1)], f"{name}/Before", [BATCH, SEQUENCE], dtype=INT64)
        return graph.node("Max", [before, graph.integers(0)], f"{name}/Positions", [BATCH, SEQUENCE], dtype=INT64)

    @functools.cached_property
    def positions(self) -> ir.Value:
        """int64 [batch, sequence]: the positions of the arranged tokens."""
        if not self._arranges:
            return self.given_positions
        inputs = [self.given_positions, self._order]
        return self._graph.node(
            "GatherElements", inputs, "position_ids/Arranged", [BATCH, SEQUENCE], dtype=INT64, axis=1
        )

    def arranged(self, x: ir.Value, name: str) -> ir.Value:
        """x [batch, sequence, K] with the rows of padding behind those of tokens; before them for a recurrence."""
        return self._gathered(x, self._order, name) if self._arranges else x

    def for_attention(self, x: ir.Value, name: str) -> ir.Value:
        """x [batch, sequence, K], which is arranged, with the rows of padding behind those of tokens."""
        return self._gathered(x, self._turn, name) if self._recurrent and self._arranges else x

    def from_attention(self, x: ir.Value, name: str) -> ir.Value:
        """What `for_attention` arranged, arranged as before."""
        return self._gathered(x, self._turn_back, name) if self._recurrent and self._arranges else x

    def without_padding(self, x: ir.Value, name: str) -> ir.Value:
        """x [batch, sequence, K], which is arranged, with zeros in the rows of padding of a recurrence."""
        return self._graph.node("Mul", [x, self._tokens], name, dims(x)) if self._arranges else x

    def restored(self, x: ir.Value, name: str) -> ir.Value:
        """x [batch, sequence, K], which is arranged, in the order of input_ids."""
        return self._gathered(x, self._order_back, name) if self._arranges else x

    def last_tokens(self) -> ir.Value:
        """int64 [batch, 1, 1]: the place of each row's last token among the arranged ones, an index for GatherND.

        In a prompt it is the end of the row. After a past, rows are not padded, and it is the end of input_ids. So it
        is for a recurrence, which has padding before tokens.
        """
        graph, name = self._graph, "last_token"
        end = graph.node("Sub", [self.width, graph.integers([1])], f"{name}/End", [1], dtype=INT64)
        if self._recurrent and self._arranges:
            rows = graph.node("Shape", [self.count], f"{name}/Rows", [1], dtype=INT64)
            index = graph.node("Expand", [end, rows], f"{name}/Index", [BATCH], dtype=INT64)
        else:
            index = graph.node("Min", [self._last, end], f"{name}/Index", [BATCH], dtype=INT64)
        return graph.node("Unsqueeze", [index, graph.integers([1, 2])], f"{name}/Indices", [BATCH, 1, 1], dtype=INT64)

    @functools.cached_property
    def _arranges(self) -> bool:
        """Whether rows can be arranged: without TopK a graph takes padding on the right only."""
        return self._graph.serves("TopK", INT64, INT64, outputs=[INT64, INT64], axis=1, largest=0, sorted=1)

    @functools.cached_property
    def _order(self) -> ir.Value:
        """int64 [batch, sequence]: the places of each row's tokens in input_ids, then those of its padding.

        For a recurrence, those of the padding come first.
        """
        graph, name = self._graph, "padding"
        bounds = [graph.integers(0), self.width_number, graph.integers(1)]
        places = graph.node("Range", bounds, f"{name}/Places", [SEQUENCE], dtype=INT64)
        # Keys that differ: equal ones would be sorted in an order that not every provider promises.
        forward = graph.node("Mul", [self._new_mask, self.width], f"{name}/Forward", [BATCH, SEQUENCE], dtype=INT64)
        moved = "Add" if self._recurrent else "Sub"
        keys = graph.node(moved, [places, forward], f"{name}/Keys", [BATCH, SEQUENCE], dtype=INT64)
        return self._sorted(keys, f"{name}/Order")

    @functools.cached_property
    def _new_mask(self) -> ir.Value:
        """int64 [batch, sequence]: which of the new tokens are no padding."""
        graph, name = self._graph, "padding"
        start = graph.node("Neg", [self.width], f"{name}/Start", [1], dtype=INT64)
        slices = [self._mask, start, graph.integers([ALL]), graph.integers([1])]
        return graph.node("Slice", slices, f"{name}/Mask", [BATCH, SEQUENCE], dtype=INT64)

    @functools.cached_property
    def _arranged_mask(self) -> ir.Value:
        """int64 [batch, sequence]: which of the arranged tokens are no padding."""
        inputs = [self._new_mask, self._order]
        return self._graph.node(
            "GatherElements", inputs, "padding/ArrangedMask", [BATCH, SEQUENCE], dtype=INT64, axis=1
        )

    @functools.cached_property
    def _turn(self) -> ir.Value:
        """int64 [batch, sequence]: the places of tokens among those with padding first, then those of the padding."""
        with self._graph.block(None):
            graph, name = self._graph, "padding"
            back = graph.node("Mul", [self._arranged_mask, self.width], f"{name}/Back", [BATCH, SEQUENCE], dtype=INT64)
            bounds = [graph.integers(0), self.width_number, graph.integers(1)]
            places = graph.node("Range", bounds, f"{name}/ArrangedPlaces", [SEQUENCE], dtype=INT64)
            keys = graph.node("Sub", [places, back], f"{name}/TurnKeys", [BATCH, SEQUENCE], dtype=INT64)
            return self._sorted(keys, f"{name}/Turn")

    @functools.cached_property
    def _turn_back(self) -> ir.Value:
        """int64 [batch, sequence]: for each place with padding first, where `_turn` has put it."""
        with self._graph.block(None):
            return self._sorted(self._turn, "padding/TurnBack")

    @functools.cached_property
    def _tokens(self) -> ir.Value:
        """[batch, sequence, 1]: 1 for arranged tokens and 0 for padding, in the activations' type."""
        with self._graph.block(None):
            graph, name = self._graph, "padding"
            shape: Dims = [BATCH, SEQUENCE, 1]
            inputs = [self._arranged_mask, graph.integers([2])]
            column = graph.node("Unsqueeze", inputs, f"{name}/Column", shape, dtype=INT64)
            return graph.node("Cast", [column], f"{name}/Tokens", shape, role=POSITIONS, to=graph.dtype)

    @functools.cached_property
    def _order_back(self) -> ir.Value:
        """int64 [batch, sequence]: for each place in input_ids, where its token was put."""
        return self._sorted(self._order, "padding/OrderBack")

    def _sorted(self, keys: ir.Value, name: str) -> ir.Value:
        """The order that sorts each row."""
        results: list[tuple[ir.DataType, list[int | str]] | None] = [(INT64, [BATCH, SEQUENCE])] * 2
        _, order = self._graph.nodes("TopK", [keys, self.width], name, results, axis=1, largest=0, sorted=1)
        return order

    def _gathered(self, x: ir.Value, order: ir.Value, name: str) -> ir.Value:
        graph = self._graph
        index = graph.node(
            "Unsqueeze", [order, graph.integers([2])], f"{name}/Index", [BATCH, SEQUENCE, 1], dtype=INT64
        )
        return graph.node("GatherND", [x, index], name, dims(x), role=PADDING, batch_dims=1)
