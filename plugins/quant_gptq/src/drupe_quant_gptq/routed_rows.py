"""Routed rows: the rows that each expert of a node runs, with their weights, passed on without holding them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drupe_layerwise import LayerByLayer, Routing, Segment
from drupe_nbits import ExpertSite
from drupe_quant_gptq.calibration import Rows, refuse_non_finite

X, LOGITS = 0, 1
"""The places of the node's inputs: a row for each token, and a logit of each expert for each row."""
Sink = Callable[[int, Rows, Rows], None]
"""Takes an expert's number, some of its rows [rows, features], and their weights [rows, 1]."""


@dataclass(frozen=True)
class _Routed:
    """The rows of one expert: their numbers, ascending, and their weights."""

    numbers: NDArray[np.int64]
    weights: Rows

    def within(self, start: int, stop: int) -> tuple[NDArray[np.int64], Rows]:
        """Those of the rows [start, stop), counted from `start`, and their weights [rows, 1]."""
        first, last = np.searchsorted(self.numbers, (start, stop))
        return self.numbers[first:last] - start, self.weights[first:last, None]


class RoutedRows:
    """The rows that the experts of one node read in a segment of a run. Only their numbers and weights are held."""

    def __init__(self, site: ExpertSite, routing: Routing, segment: Segment, layers: LayerByLayer) -> None:
        self._site, self._segment, self._layers = site, segment, layers
        numbers: list[list[NDArray[np.int64]]] = [[] for _ in range(site.up.experts)]
        weights: list[list[Rows]] = [[] for _ in range(site.up.experts)]
        self.total = 0
        """How many rows there are."""

        def route(rows: Rows) -> None:
            found = routing.weights(rows)
            for expert, column in enumerate(found.T):
                own = np.flatnonzero(column)
                numbers[expert].append(own + self.total)
                weights[expert].append(column[own])
            self.total += len(rows)

        self._collect(LOGITS, route)
        self._routed = [
            _Routed(np.concatenate(own), np.concatenate(their)) for own, their in zip(numbers, weights, strict=True)
        ]

    @property
    def reached(self) -> NDArray[np.int64]:
        """How many rows each expert runs."""
        return np.array([len(each.numbers) for each in self._routed], np.int64)

    def mean_square_weight(self, expert: int) -> float:
        """The mean of an expert's squared weights; 1 where it runs no row."""
        weights = self._routed[expert].weights
        return float(np.square(weights, dtype=np.float64).mean()) if len(weights) else 1.0

    def each(self, sink: Callable[[Rows], None]) -> None:
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
        """So many rows of all, evenly spaced; all where there are no more."""
        step = max(1, self.total // count)
        kept: list[Rows] = []
        start = 0

        def pick(rows: Rows) -> None:
            nonlocal start
            kept.append(rows[-start % step :: step])
            start += len(rows)

        self._collect(X, pick)
        return np.concatenate(kept)[:count]

    def _collect(self, place: int, sink: Callable[[Rows], None]) -> None:
        value = self._site.node.inputs[place]
        assert value is not None

        def passed(_: str, rows: Rows) -> None:
            refuse_non_finite(rows, self._site.name)
            sink(rows)

        self._layers.collect(self._segment, {value.name or ""}, passed, settled=True)
