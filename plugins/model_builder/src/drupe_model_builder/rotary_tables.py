"""The tables of sines and cosines of a rotary embedding, as lazy weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from drupe_model_builder.graph import GraphBuilder
from drupe_model_builder.parts.rotary import Rotary
from drupe_onnx import Expression, Files, ir


@dataclass(frozen=True)
class RotaryCache(Expression):
    """The table [positions, pairs] of one function of the angles, times a scaling; computed when it is written.

    Everything is float32, as in transformers. This matters most for the product of position and frequency: with float32
    the table agrees with transformers at large positions as well.
    """

    function: Literal["cos", "sin"]
    positions: int
    frequencies: tuple[float, ...]
    scaling: float
    dtype: ir.DataType

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.positions, len(self.frequencies))

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        positions = np.arange(start, stop, dtype=np.float32)
        angles = positions[:, None] * np.asarray(self.frequencies, np.float32)
        table = (np.cos if self.function == "cos" else np.sin)(angles)
        if self.scaling != 1.0:
            table *= np.float32(self.scaling)
        return table.astype(self.dtype.numpy(), copy=False)

    def working_bytes(self, rows: int) -> int:
        return 8 * rows * len(self.frequencies) + self.held_bytes(rows)


class RotaryTables:
    """The tables of every rotary embedding of one graph; equal embeddings share them."""

    def __init__(self, graph: GraphBuilder, positions: int) -> None:
        self._graph = graph
        self._positions = positions
        self._numbers: dict[Rotary, int] = {}

    def of(self, rotary: Rotary) -> tuple[ir.Value, ir.Value]:
        """The tables of cosines and sines: [positions, pairs]."""
        number = self._numbers.setdefault(rotary, len(self._numbers))
        prefix = f"rotary.{number}" if number else "rotary"
        return self._table(rotary, f"{prefix}.cos_cache", "cos"), self._table(rotary, f"{prefix}.sin_cache", "sin")

    def _table(self, rotary: Rotary, name: str, function: Literal["cos", "sin"]) -> ir.Value:
        table = RotaryCache(function, self._positions, rotary.frequencies, rotary.scaling, self._graph.dtype)
        return self._graph.initializer(name, table)
