"""Minimums: blocks of level * scale + minimum, for which MatMulNBits has no integer zero point.

With z = 2^(bits - 1) such a value is (level - z) * scale + (minimum + z * scale). The operator does the first part. The
second is one number for all values of a block, so that it multiplies the sum of the block's activations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe_blockquant import Scheme
from drupe_nbits.sites import Site
from drupe_onnx import BLOCK, ir

OPERATORS = {"Add": 2, "Mul": 2, "MatMul": 2, "Transpose": 1, "Unsqueeze": 1, "Reshape": 1, "ReduceSum": 1}
"""What stands in the graph for them, with the number of floating-point inputs of each; look-ups have Gather as well."""

Constant = Callable[[str, NDArray[Any]], ir.Value]


class MinimumNodes:
    """The nodes behind the one that has a site's place: they add the second part to the first, which that one gives.

    constant: makes a value of a name and an array.
    """

    def __init__(self, site: Site, scheme: Scheme, constant: Constant) -> None:
        self._site, self._constant = site, constant
        self._middle = 1 << (scheme.bits - 1)
        self._blocks = (scheme.blocks(site.rows.shape[1]), scheme.block_size)
        self._nodes: list[ir.Node] = []

    def behind(self, node: ir.Node, scales: ir.Value, minimums: ir.Value) -> list[ir.Node]:
        """All of them, in order; the last one gives what the site did. scales, minimums: [N, blocks]."""
        first = node.outputs[0]
        first.name, first.type = f"{self._name}/levels", ir.TensorType(self._site.dtype)
        middle = self._constant(f"{self._name}/middle", np.array(self._middle, self._site.dtype.numpy()))
        shifts = self._add("Add", minimums, self._add("Mul", scales, middle))
        if self._site.is_look_up:
            self._rows_and_shifts(first, shifts)
        else:
            self._add("Add", first, self._add("MatMul", self._block_sums(), self._add("Transpose", shifts)))
        return self._nodes

    def _block_sums(self) -> ir.Value:
        """The sum of the activations over each block: [..., blocks]."""
        return self._add("ReduceSum", self._reshaped(self._site.activations, -1, self._blocks), self._last, keepdims=0)

    def _rows_and_shifts(self, rows: ir.Value, shifts: ir.Value) -> None:
        """To each row that is looked up, the shift of each of its blocks."""
        found = self._add("Unsqueeze", self._add("Gather", shifts, self._site.activations), self._last)
        summed = self._add("Add", self._reshaped(rows, 0, self._blocks), found)
        self._reshaped(summed, 0, self._site.rows.shape[1:])

    def _reshaped(self, value: ir.Value, more: int, last: Sequence[int]) -> ir.Value:
        """`value` as the dimensions of the site's input, or so many more of them, and then `last`."""
        kept = len(self._site.activations.shape or ()) + more
        shape = self._constant(f"{self._name}/as_{len(last)}", np.array([0] * kept + [*last], np.int64))
        return self._add("Reshape", value, shape)

    @property
    def _last(self) -> ir.Value:
        """The last axis."""
        return self._constant(f"{self._name}/last", np.array([-1], np.int64))

    @property
    def _name(self) -> str:
        return self._site.node.name or self._site.name

    def _add(self, operator: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        """The output of another node."""
        name = f"{self._name}/minimums_{len(self._nodes)}_{operator}"
        metadata = {key: value for key, value in self._site.node.metadata_props.items() if key == BLOCK}
        node = ir.node(operator, inputs, attributes, name=name, metadata_props=metadata)
        node.outputs[0].name, node.outputs[0].type = f"{name}/output_0", ir.TensorType(self._site.dtype)
        self._nodes.append(node)
        return node.outputs[0]
