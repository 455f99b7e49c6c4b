"""Routed rows: the rows that each expert of a node runs, with their weights, passed on without holding them."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from drupe.api import Record
from drupe_layerwise.expert_arithmetic import Routing
from drupe_layerwise.expert_groups import LOGITS, X
from drupe_layerwise.layer_by_layer import LayerByLayer, Rows
from drupe_layerwise.segments import Segment
from drupe_onnx import ir

Sink = Callable[[int, Rows, Rows], None]
"""Takes an expert's number, some of its rows [rows, features], and their weights [rows, 1]."""


class _Routed(Record):
    """The rows of one expert: their numbers, ascending, and their weights."""

    numbers: NDArray[np.int64]
    weights: Rows

    def within(self, start: int, stop: int) -> tuple[NDArray[np.int64], Rows]:
        """Those of the rows [start, stop), counted from `start`, and their weights [rows, 1]."""
        first, last = np.searchsorted(self.numbers, (start, stop))
        return self.numbers[first:last] - start, self.weights[first:last, None]


class RoutedRows:
    """What the experts of one node of a segment read. Of the rows, only their numbers and weights are held.

    The nodes before the experts must not be changed any more: their results are kept in files (`collect`, `settled`).
    """

    def __init__(self, layers: LayerByLayer, segment: Segment, node: ir.Node, routing: Routing) -> None:
        """routing: of the node. The router is run here. Raises Cancelled and ModelError as `collect` does."""
        self._layers, self._segment, self._node = layers, segment, node
        self.total = 0
        """How many rows there are."""
        found: list[list[_Routed]] = []

        def route(rows: Rows) -> None:
            found.append([self._of_column(column) for column in routing.weights(rows).T])
            self.total += len(rows)

        self._collect(LOGITS, route)
        self._routed = [_joined(batches) for batches in zip(*found, strict=True)]

    @property
    def reached(self) -> NDArray[np.int64]:
        """How many rows each expert runs."""
        return np.array([len(each.numbers) for each in self._routed], np.int64)

    def weights(self, expert: int) -> Rows:
        """The weights of an expert's rows."""
        return self._routed[expert].weights

    def all(self, sink: Callable[[Rows], None]) -> None:
        """Pass all rows to `sink`, batch after batch."""
        self._collect(X, sink)

    def of(self, experts: Collection[int], sink: Sink) -> None:
        """Pass the rows of some experts to `sink`, batch after batch."""
        start = 0

        def pick(rows: Rows) -> None:
            nonlocal start
            for expert in experts:
                own, weights = self._routed[expert].within(start, start + len(rows))
                if len(own):
                    sink(expert, rows[own], weights)
            start += len(rows)

        self._collect(X, pick)

    def sample(self, count: int) -> Rows:
        """So many rows of all; all where there are no more.

        They are drawn at random: at equal distances, first tokens of sequences could be too many of them.
        """
        drawn = np.sort(np.random.default_rng(0).choice(self.total, min(count, self.total), replace=False))
        kept: list[Rows] = []
        start = 0

        def pick(rows: Rows) -> None:
            nonlocal start
            first, last = np.searchsorted(drawn, (start, start + len(rows)))
            kept.append(rows[drawn[first:last] - start])
            start += len(rows)

        self._collect(X, pick)
        return np.concatenate(kept)

    def _of_column(self, column: Rows) -> _Routed:
        """The rows of an expert in a batch, from its weight in each of the batch's rows."""
        own = np.flatnonzero(column)
        return _Routed(own + self.total, column[own])

    def _collect(self, place: int, sink: Callable[[Rows], None]) -> None:
        value = self._node.inputs[place]
        assert value is not None
        self._layers.collect(self._segment, {value.name or ""}, lambda _, rows: sink(rows), settled=True)


def _joined(batches: Collection[_Routed]) -> _Routed:
    numbers = np.concatenate([each.numbers for each in batches])
    return _Routed(numbers, np.concatenate([each.weights for each in batches]))
