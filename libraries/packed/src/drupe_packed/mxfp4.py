"""MXFP4: floats of 4 bits in blocks of 32 that share a power of two, the form of gpt-oss's experts.

https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe_onnx import Expression, Files, ir, member

BLOCK, BLOCK_BYTES = 32, 16
MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
EXPONENT_BIAS = 127


class Mxfp4Values(Expression):
    """The values of a tensor [..., K] as bfloat16, which holds them exactly.

    blocks: uint8 [..., K / 32, 16], two values to a byte, the first in the low bits; bit 3 is the sign. scales: uint8
    [..., K / 32]: the exponent of a power of two, plus 127.
    """

    blocks: Expression
    scales: Expression

    def __post_init__(self) -> None:
        if self.blocks.shape != (*self.scales.shape, BLOCK_BYTES):
            raise ValueError(f"blocks of shape {self.blocks.shape} do not fit scales of shape {self.scales.shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.scales.shape[:-1], self.scales.shape[-1] * BLOCK)

    @property
    def dtype(self) -> ir.DataType:
        return ir.DataType.BFLOAT16

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        with files.passing():
            levels = np.array(self.blocks.rows(start, stop, files))
        with files.passing():
            exponents = self.scales.rows(start, stop, files).astype(np.int32) - EXPONENT_BIAS
        values = np.ldexp(_PAIRS[levels], exponents[..., None, None])
        out = files.empty((stop - start, *self.shape[1:]), self.dtype.numpy())
        out[...] = values.reshape(out.shape)
        return out

    def working_bytes(self, rows: int) -> int:
        wide = 3 * 4 * rows * self.row_size
        return self.held_bytes(rows) + wide + self.blocks.working_bytes(rows) + self.scales.working_bytes(rows)

    def member(self, index: int) -> Expression:
        """The part `index` along axis 0, without that axis."""
        return Mxfp4Values(member(self.blocks, index), member(self.scales, index))


def _pairs() -> NDArray[np.float32]:
    """The two values of each byte: float32 [256, 2]."""
    signed = np.array([*MAGNITUDES, *(-each for each in MAGNITUDES)], np.float32)
    byte = np.arange(256)
    return np.stack([signed[byte & 15], signed[byte >> 4]], -1)


_PAIRS = _pairs()
