"""Windows of attention in both directions, as biases: GroupQueryAttention itself has windows of earlier tokens only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe_model_builder.dimensions import SEQUENCE, Dims
from drupe_model_builder.parts.attention_bias import AttentionBiases

if TYPE_CHECKING:
    from drupe_onnx import ir

SHUT_OUT = -30_000.0
"""The bias of a token outside: it fits into float16, and softmax makes 0 of it."""


class WindowBiases(AttentionBiases[int]):
    """The biases of one graph without a past, by the window."""

    def _bias(self, window: int) -> ir.Value:
        """[1, 1, sequence, sequence]: 0 for tokens whose distance is less than the window."""
        from drupe_onnx import POSITIONS, ir

        graph, int64, name = self._graph, ir.DataType.INT64, f"window.{window}"
        square: Dims = [SEQUENCE, SEQUENCE]
        bounds = [graph.integers(0), self._lengths.width_number, graph.integers(1)]
        places = graph.node("Range", bounds, f"{name}/Places", [SEQUENCE], dtype=int64)
        column = graph.node("Unsqueeze", [places, graph.integers([1])], f"{name}/Column", [SEQUENCE, 1], dtype=int64)
        apart = graph.node("Sub", [column, places], f"{name}/Apart", square, dtype=int64)
        distance = graph.node("Abs", [apart], f"{name}/Distance", square, dtype=int64)
        inputs = [distance, graph.integers(window)]
        near = graph.node("Less", inputs, f"{name}/Near", square, dtype=ir.DataType.BOOL)
        choices = [near, graph.number(0.0, graph.dtype), graph.number(SHUT_OUT, graph.dtype)]
        bias = graph.node("Where", choices, f"{name}/Bias", square)
        whole: Dims = [1, 1, *square]
        return graph.node("Unsqueeze", [bias, graph.integers([0, 1])], name, whole, role=POSITIONS)
