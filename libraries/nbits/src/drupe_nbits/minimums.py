"""Minimums: blocks of (level - lowest) * scale + minimum, which no integer zero point of MatMulNBits can express.

With z = 2^(bits - 1) such a value is (level - z) * scale + (minimum + (z - lowest) * scale). MatMulNBits computes the
first part. The second part is one number for all values of a block, so it is multiplied with the sum of the block's
activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import Record
from drupe_blockquant import Scheme
from drupe_nbits.sites import Site
from drupe_onnx import BLOCK, Array, Expression, Tape, ir, shared_initializer

OPERATORS = {"Add": 2, "Mul": 2, "MatMul": 2, "Transpose": 1, "Unsqueeze": 1, "Reshape": 1, "ReduceSum": 1}
"""The operators that compute with minimums, with the number of floating-point inputs of each; look-ups add Gather."""


class Minimums(Record):
    """values: [N, blocks]. lowest: the level that stands for the minimum."""

    values: Expression
    lowest: int = 0


class MinimumNodes:
    """The nodes that follow the quantized product or look-up of a site, and add the second part to its result.

    graph: gets their constants. tape: records them. lowest: see `Minimums`.
    """

    def __init__(self, graph: ir.Graph, tape: Tape, site: Site, scheme: Scheme, lowest: int) -> None:
        self._graph, self._tape, self._site = graph, tape, site
        self._middle = (1 << (scheme.bits - 1)) - lowest
        self._blocks = (scheme.blocks(site.rows.shape[1]), scheme.block_size)
        self._marks = {key: value for key, value in site.node.metadata_props.items() if key == BLOCK}
        self._count = 0

    def add(self, first: ir.Value, scales: ir.Value, minimums: ir.Value) -> None:
        """Record all of these nodes; the last one gives the site's result. scales, minimums: [N, blocks]."""
        first.name = f"{self._name}/levels"
        middle = self._constant(f"{self._name}/middle", np.array(self._middle, self._site.dtype.numpy()))
        shifts = self._add("Add", minimums, self._add("Mul", scales, middle))
        if self._site.is_look_up:
            self._rows_and_shifts(first, shifts)
        else:
            self._add("Add", first, self._add("MatMul", self._block_sums(), self._add("Transpose", shifts)))

    def _block_sums(self) -> ir.Value:
        """The sum of the activations over each block: [..., blocks]."""
        return self._add("ReduceSum", self._reshaped(self._site.activations, -1, self._blocks), self._last, keepdims=0)

    def _rows_and_shifts(self, rows: ir.Value, shifts: ir.Value) -> None:
        """Adds to each looked-up row the shift of each of its blocks."""
        found = self._add("Unsqueeze", self._add("Gather", shifts, self._site.activations), self._last)
        summed = self._add("Add", self._reshaped(rows, 0, self._blocks), found)
        self._reshaped(summed, 0, self._site.rows.shape[1:])

    def _reshaped(self, value: ir.Value, more: int, last: Sequence[int]) -> ir.Value:
        """`value` reshaped to the dimensions of the site's input, or so many more of them, followed by `last`."""
        kept = len(self._site.activations.shape or ()) + more
        shape = self._constant(f"{self._name}/as_{len(last)}", np.array([0] * kept + [*last], np.int64))
        return self._add("Reshape", value, shape)

    @property
    def _last(self) -> ir.Value:
        """The number of the last axis."""
        return self._constant(f"{self._name}/last", np.array([-1], np.int64))

    @property
    def _name(self) -> str:
        return self._site.node.name or self._site.name

    def _constant(self, name: str, value: NDArray[Any]) -> ir.Value:
        return shared_initializer(self._graph, name, Array(value))

    def _add(self, operator: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        """Record one more node; returns its output."""
        name = f"{self._name}/minimums_{self._count}_{operator}"
        self._count += 1
        return self._tape.node(operator, inputs, name, self._site.dtype, attributes=attributes, marks=self._marks)
