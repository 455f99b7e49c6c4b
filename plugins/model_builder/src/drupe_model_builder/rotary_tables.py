"""The tables of cosines and sines of a rotary embedding: stored as lazy weights, or computed in the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from drupe.api import replace
from drupe_model_builder.dimensions import TOTAL, Dims, dims
from drupe_model_builder.graph import GraphBuilder
from drupe_model_builder.parts.required import Lacking
from drupe_model_builder.parts.rotary import DynamicNtk, LongRope, Rotary
from drupe_model_builder.sequence_lengths import INT64, Lengths
from drupe_onnx import POSITIONS, Array, Expression, Files, ir
from drupe_onnx.traits import IN_MEMORY

STORED = 32768
"""The longest context whose tables are stored. They cost no time then, and up to 17 MB for heads of 128 elements; the
tables of a context of a million tokens would be larger than the weights of a small model."""
FLOAT = ir.DataType.FLOAT


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

    def __init__(self, graph: GraphBuilder, context_length: int, lengths: Lengths) -> None:
        self._graph = graph
        self._context_length = context_length
        self._lengths = lengths
        self._made: dict[tuple[Rotary, int], tuple[ir.Value, ir.Value]] = {}

    def of(self, rotary: Rotary, pairs: int) -> tuple[ir.Value, ir.Value]:
        """The cosines and sines [positions, pairs] of a rotary embedding, a row for each position that a run reads.

        pairs: their width; pairs without a frequency are not rotated.
        Tables of a long context, and those that change with a sequence's length, are computed in each run, so they cost
        no bytes and reach as far as the sequence does. Raises Lacking where a table that changes cannot be computed.
        """
        key = (replace(rotary, interleaved=False), pairs)
        if key not in self._made:
            prefix = f"rotary.{len(self._made)}" if self._made else "rotary"
            with self._graph.block(None):
                self._made[key] = self._tables(rotary, pairs, prefix)
        return self._made[key]

    def _tables(self, rotary: Rotary, pairs: int, prefix: str) -> tuple[ir.Value, ir.Value]:
        graph, length = self._graph, self._context_length
        missing = _missing(graph)
        if not missing:
            if rotary.longer is not None or length > STORED:
                return _Computed(graph, rotary, pairs, self._lengths, prefix).tables()
        elif rotary.longer is not None:
            raise Lacking(f"has no {missing[0]}, which a rotary embedding that changes with the length needs")
        frequencies = rotary.frequencies + (0.0,) * (pairs - len(rotary.frequencies))
        return (
            graph.initializer(
                f"{prefix}.cos_cache", RotaryCache("cos", length, frequencies, rotary.scaling, graph.dtype)
            ),
            graph.initializer(
                f"{prefix}.sin_cache", RotaryCache("sin", length, frequencies, rotary.scaling, graph.dtype)
            ),
        )


def _missing(graph: GraphBuilder) -> list[str]:
    """The operators that compute tables and that the target lacks."""
    operators = [("Range", [INT64] * 3, INT64), ("Cos", [FLOAT], FLOAT), ("Sin", [FLOAT], FLOAT)]
    return [name for name, inputs, output in operators if not graph.serves(name, *inputs, outputs=[output])]


class _Computed:
    """Nodes that compute the tables of one run, before the blocks.

    Where values are in memory, a run computes the rows of its new tokens, and those of the past are zeros that nobody
    reads. Elsewhere the first row would have to be read from the device, which takes longer than computing all rows.
    """

    def __init__(self, graph: GraphBuilder, rotary: Rotary, pairs: int, lengths: Lengths, prefix: str) -> None:
        self._graph, self._rotary, self._pairs, self._lengths = graph, rotary, pairs, lengths
        self._prefix = prefix
        self._only_new = (
            bool(graph.capabilities.traits.get(IN_MEMORY))
            and graph.serves("ReduceMin", INT64, outputs=[INT64], keepdims=0)
            and graph.serves("Pad", FLOAT, INT64, outputs=[FLOAT])
        )

    def tables(self) -> tuple[ir.Value, ir.Value]:
        first = self._first() if self._only_new else self._graph.integers(0)
        bounds = [first, self._lengths.total, self._graph.integers(1)]
        positions = self._node("Range", bounds, "Positions", ["positions"], dtype=INT64)
        column = self._node(
            "Unsqueeze", [positions, self._graph.integers([1])], "Column", ["positions", 1], dtype=INT64
        )
        wide = self._float("Cast", [column], "Float", ["positions", 1], to=FLOAT)
        angles = self._float("Mul", [wide, self._frequencies()], "Angles", ["positions", self._pairs])
        before = self._rows_before(first) if self._only_new else None
        return (self._table("Cos", angles, before), self._table("Sin", angles, before))

    def _first(self) -> ir.Value:
        """int64 scalar: the first position of a new token in any row."""
        shortest = self._node("ReduceMin", [self._lengths.count], "Shortest", [], dtype=INT64, keepdims=0)
        before = self._node("Sub", [shortest, self._lengths.width_number], "Before", [], dtype=INT64)
        return self._node("Max", [before, self._graph.integers(0)], "First", [], dtype=INT64)

    def _rows_before(self, first: ir.Value) -> ir.Value:
        """int64 [4]: the padding that puts `first` rows before a table."""
        return self._node("Mul", [first, self._graph.integers([1, 0, 0, 0])], "RowsBefore", [4], dtype=INT64)

    def _frequencies(self) -> ir.Value:
        """float32 [pairs]: the frequencies for sequences of this run's length."""
        longer = self._rotary.longer
        if isinstance(longer, DynamicNtk):
            return self._growing(longer)
        plain = self._constant("frequencies", self._padded(self._rotary.frequencies))
        if isinstance(longer, LongRope):
            trained = self._graph.integers(longer.trained)
            long = self._node("Greater", [self._lengths.total, trained], "Long", [], dtype=ir.DataType.BOOL)
            other = self._constant("long_frequencies", self._padded(longer.frequencies))
            return self._float("Where", [long, other, plain], "Frequencies", [self._pairs])
        return plain

    def _growing(self, longer: DynamicNtk) -> ir.Value:
        """Every step is one of transformers, in float32."""
        dim, pairs = self._rotary.width, len(self._rotary.frequencies)
        trained = self._graph.integers(longer.trained)
        length = self._node("Max", [self._lengths.total, trained], "Length", [], dtype=INT64)
        grown = self._float("Cast", [length], "LengthFloat", [], to=FLOAT)
        steps = [("Mul", longer.factor), ("Div", longer.trained), ("Sub", longer.factor - 1), ("Pow", dim / (dim - 2)),
                 ("Mul", longer.theta)]  # fmt: skip
        for place, (operator, number) in enumerate(steps):
            grown = self._float(operator, [grown, self._graph.number(number, FLOAT)], f"Theta{place}", [])
        exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
        powers = self._float("Pow", [grown, self._constant("exponents", exponents)], "Powers", [pairs])
        found = self._float("Reciprocal", [powers], "Frequencies", [pairs])
        if pairs == self._pairs:
            return found
        rest = self._constant("without_frequency", np.zeros(self._pairs - pairs, np.float32))
        return self._float("Concat", [found, rest], "Padded", [self._pairs], axis=0)

    def _table(self, operator: str, angles: ir.Value, before: ir.Value | None) -> ir.Value:
        graph, shape = self._graph, dims(angles)
        table = self._float(operator, [angles], operator, shape)
        if self._rotary.scaling != 1.0:
            table = self._float("Mul", [table, graph.number(self._rotary.scaling, FLOAT)], f"{operator}/Scaled", shape)
        if before is not None:
            table = self._float("Pad", [table, before], f"{operator}/AllRows", [TOTAL, self._pairs])
        if graph.dtype != FLOAT:
            table = self._node("Cast", [table], f"{operator}/Narrow", dims(table), to=graph.dtype)
        return table

    def _padded(self, frequencies: tuple[float, ...]) -> NDArray[np.float32]:
        return np.array(frequencies + (0.0,) * (self._pairs - len(frequencies)), np.float32)

    def _constant(self, name: str, values: NDArray[np.float32]) -> ir.Value:
        return self._graph.initializer(f"{self._prefix}.{name}", Array(values))

    def _float(
        self, operator: str, inputs: Sequence[ir.Value | None], name: str, shape: Dims, **attributes: Any
    ) -> ir.Value:
        return self._node(operator, inputs, name, shape, dtype=FLOAT, **attributes)

    def _node(
        self, operator: str, inputs: Sequence[ir.Value | None], name: str, shape: Dims, **attributes: Any
    ) -> ir.Value:
        return self._graph.node(operator, inputs, f"{self._prefix}/{name}", shape, role=POSITIONS, **attributes)
