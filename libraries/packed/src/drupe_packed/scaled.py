"""Scaled values: numbers of 8 bits, each times the scale of its block, its row, or its matrix.

DeepSeek's FP8 has a scale for each 128 x 128 values (transformers' `FineGrainedFP8Config`); compressed-tensors has one
for each row or matrix, and int8 as well as FP8. Scales are multiplied with, also those that are called "inverse".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe_onnx import Expression, Files, ir, member

VALUES = (ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2, ir.DataType.INT8)
SCALES = (ir.DataType.FLOAT, ir.DataType.BFLOAT16, ir.DataType.FLOAT16)
EXPONENTS = (ir.DataType.UINT8, ir.DataType.FLOAT8E8M0)
"""The types of scales that are the exponent of a power of two, plus 127."""
EXPONENT_BIAS = 127


class ScaledValues(Expression):
    """The values of a matrix [N, K], or of several [E, N, K], as float32.

    scales: [..., ceil(N / block[0]), ceil(K / block[1])], with the dimensions of `values`.
    """

    values: Expression
    scales: Expression
    block: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> ir.DataType:
        return ir.DataType.FLOAT

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        high, wide = self.block
        several = len(self.shape) == 3
        first, last = (start, stop) if several else (start // high, -(-stop // high))
        with files.passing():
            scales = _factors(self.scales.rows(first, last, files), self.scales.dtype)
        out = files.empty((stop - start, *self.shape[1:]), self.dtype.numpy())
        with files.passing():
            out[...] = self.values.rows(start, stop, files)
        scales = np.repeat(scales, high, -2)
        scales = scales[:, : self.shape[1]] if several else scales[start - first * high : stop - first * high]
        for column in range(scales.shape[-1]):
            out[..., column * wide : (column + 1) * wide] *= scales[..., column : column + 1]
        return out

    def working_bytes(self, rows: int) -> int:
        high, _ = self.block
        several = len(self.shape) == 3
        blocks = rows if several else rows // high + 2
        repeated = 4 * 2 * (rows + 2 * high) * self.scales.shape[-1] * (self.shape[1] if several else 1)
        return self.held_bytes(rows) + self.values.working_bytes(rows) + self.scales.working_bytes(blocks) + repeated

    def member(self, index: int) -> Expression:
        """The part `index` along axis 0, without that axis."""
        return ScaledValues(member(self.values, index), member(self.scales, index), self.block)


def _factors(scales: NDArray[Any], dtype: ir.DataType) -> NDArray[np.float32]:
    """The factors that scales of this type stand for."""
    if dtype == ir.DataType.UINT8:
        return np.ldexp(np.float32(1), scales.astype(np.int32) - EXPONENT_BIAS)
    return scales.astype(np.float32)
