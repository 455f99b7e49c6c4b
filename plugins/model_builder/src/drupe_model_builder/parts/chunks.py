"""Attention within chunks: a token reads the earlier ones of its own chunk only, as in Llama 4.

No operator of onnxruntime knows chunks. GroupQueryAttention takes a bias on its products, which is a mask here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe_model_builder.dimensions import BATCH, SEQUENCE, TOTAL, Dims
from drupe_model_builder.parts.router import NEVER

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_model_builder.sequence_lengths import Lengths
    from drupe_onnx import ir


class ChunkMasks:
    """The masks of one graph; layers with chunks of one size share one."""

    def __init__(self, graph: GraphBuilder, lengths: Lengths) -> None:
        self._graph = graph
        self._lengths = lengths
        self._made: dict[int, ir.Value] = {}

    def of(self, size: int) -> ir.Value:
        """The mask [batch, 1, sequence, total] in the activations' type. size: how many tokens a chunk has."""
        if size not in self._made:
            with self._graph.block(None):  # no block's own: later ones read it, too
                self._made[size] = self._mask(size, f"chunks.{size}")
        return self._made[size]

    def _mask(self, size: int, name: str) -> ir.Value:
        """0 for keys from the beginning of the query's chunk on. The operator leaves later tokens out itself."""
        from drupe_onnx import POSITIONS, ir

        graph, whole = self._graph, ir.DataType.INT64
        column: Dims = [BATCH, 1, SEQUENCE, 1]
        at, length = self._lengths.positions, graph.integers(size)
        number = graph.node("Div", [at, length], f"{name}/Number", [BATCH, SEQUENCE], dtype=whole)
        first = graph.node("Mul", [number, length], f"{name}/First", [BATCH, SEQUENCE], dtype=whole)
        first = graph.node("Unsqueeze", [first, graph.integers([1, 3])], f"{name}/Column", column, dtype=whole)
        limits = [graph.integers(0), self._lengths.total, graph.integers(1)]
        places = graph.node("Range", limits, f"{name}/Places", [TOTAL], dtype=whole)
        shape: Dims = [BATCH, 1, SEQUENCE, TOTAL]
        before = graph.node("Less", [places, first], f"{name}/Before", shape, dtype=ir.DataType.BOOL)
        inputs = [before, graph.number(NEVER), graph.number(0.0)]
        return graph.node("Where", inputs, f"{name}/Mask", shape, role=POSITIONS)
