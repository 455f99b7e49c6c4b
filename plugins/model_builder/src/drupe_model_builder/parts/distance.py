"""Distance: a bias on attention that grows with the distance of two tokens (ALiBi, https://arxiv.org/abs/2108.12409)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import SEQUENCE, TOTAL, Dims, dims
from drupe_model_builder.parts.attention_bias import AttentionBiases

if TYPE_CHECKING:
    from drupe_onnx import ir


class Distance(Record):
    """slopes: of each head; the bias of a key at position p is slope * p. Softmax makes the distance of it.

    rounded: whether p and slope * p are rounded to bfloat16, as in Falcon. factor: on the bias.
    """

    slopes: tuple[float, ...]
    rounded: bool = False
    factor: float = 1.0


class DistanceBiases(AttentionBiases[Distance]):
    """The biases of one graph, by what they are made of."""

    def _bias(self, part: Distance) -> ir.Value:
        """[1, heads, sequence, total]."""
        import numpy as np

        from drupe_onnx import POSITIONS, Array, ir

        graph, wide, int32, int64 = self._graph, ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64
        heads, name = len(part.slopes), f"distance.{len(self._made)}"
        row: Dims = [1, heads, 1, TOTAL]
        shape: Dims = [1, heads, SEQUENCE, TOTAL]
        limits = [graph.integers(0, np.int32), self._lengths.total_length(), graph.integers(1, np.int32)]
        places = graph.node("Range", limits, f"{name}/Places", [TOTAL], dtype=int32)
        places = graph.node("Cast", [places], f"{name}/Float", [TOTAL], dtype=wide, to=wide)
        if part.rounded:
            places = self._rounded(places, f"{name}/RoundedPlaces")
        column = np.array(part.slopes, np.float32).reshape(1, heads, 1, 1)
        slopes = graph.initializer(f"{name}.slopes", Array(column))
        bias = graph.node("Mul", [places, slopes], f"{name}/Mul", row, dtype=wide)
        if part.rounded:
            bias = self._rounded(bias, f"{name}/Rounded")
        if part.factor != 1.0:
            bias = graph.node("Mul", [bias, graph.number(part.factor, wide)], f"{name}/Factor", row, dtype=wide)
        if graph.dtype != wide:
            bias = graph.node("Cast", [bias], f"{name}/Narrow", row, to=graph.dtype)
        length = graph.node("Shape", [self._lengths.ids], f"{name}/Length", [1], dtype=int64, start=1, end=2)
        one = graph.integers([1])
        wanted = graph.node("Concat", [one, one, length, one], f"{name}/Shape", [4], dtype=int64, axis=0)
        return graph.node("Expand", [bias, wanted], f"{name}/Expand", shape, role=POSITIONS)

    def _rounded(self, value: ir.Value, name: str) -> ir.Value:
        """float32 values rounded to bfloat16."""
        from drupe_onnx import ir

        short, wide, shape = ir.DataType.BFLOAT16, ir.DataType.FLOAT, dims(value)
        rounded = self._graph.node("Cast", [value], f"{name}/Narrow", shape, dtype=short, to=short)
        return self._graph.node("Cast", [rounded], f"{name}/Wide", shape, dtype=wide, to=wide)
