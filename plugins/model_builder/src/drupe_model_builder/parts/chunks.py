"""Attention within chunks: a token reads the earlier ones of its own chunk only, as in Llama 4.

No operator of onnxruntime knows chunks. GroupQueryAttention takes a bias on its products, which is a mask here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe_model_builder.dimensions import BATCH, SEQUENCE, TOTAL, Dims
from drupe_model_builder.parts.attention_bias import AttentionBiases
from drupe_model_builder.parts.router import NEVER

if TYPE_CHECKING:
    from drupe_onnx import ir


class ChunkMasks(AttentionBiases[int]):
    """The masks of one graph, by how many tokens a chunk has."""

    def _bias(self, size: int) -> ir.Value:
        """[batch, 1, sequence, total]: 0 for keys from the beginning of the query's chunk on.

        The operator leaves later tokens out itself.
        """
        from drupe_onnx import POSITIONS, ir

        graph, whole, name = self._graph, ir.DataType.INT64, f"chunks.{size}"
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
