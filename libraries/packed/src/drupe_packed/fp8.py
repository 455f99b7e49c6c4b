"""FP8 in blocks: floats of 8 bits, with a scale for each block of a matrix. DeepSeek V3 is published in this form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe_onnx import Expression, Files, ir, member

EXPONENT_BIAS = 127


@dataclass(frozen=True)
class Fp8Values(Expression):
    """The values of a matrix [rows, columns], or of several [experts, rows, columns], as float32.

    levels: floats of 8 bits. scales: what they are multiplied with (though its name ends in "inv"), one for each block
    [.., ceil(rows / block), ceil(columns / block)]: floats, or exponents of two plus 127. block: rows and columns that
    share a scale; None where all of a matrix do: scales [] or [1] then, or [experts].
    """

    levels: Expression
    scales: Expression
    block: tuple[int, int] | None

    def __post_init__(self) -> None:
        if self.scales.shape not in self._fitting():
            raise ValueError(f"values of shape {self.levels.shape} do not fit scales of shape {self.scales.shape}")

    def _fitting(self) -> tuple[tuple[int, ...], ...]:
        """The shapes that the scales may have."""
        *before, rows, columns = self.levels.shape
        if self.block is None:
            return tuple((*before, *rest) for rest in ((), (1,), (1, 1)))
        high, wide = self.block
        return ((*before, -(-rows // high), -(-columns // wide)),)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.levels.shape

    @property
    def dtype(self) -> ir.DataType:
        return ir.DataType.FLOAT

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        out = files.empty((stop - start, *self.shape[1:]), self.dtype.numpy())
        if len(self.shape) > 2:
            for place, index in enumerate(range(start, stop)):
                with files.passing():
                    out[place] = self.member(index).value(files)
            return out
        with files.passing():
            levels = self.levels.rows(start, stop, files)
            np.take(_floats(levels.dtype), levels.view(np.uint8), out=out, mode="clip")  # without a copy
        with files.passing():
            self._scale(out, start, files)
        return out

    def _scale(self, out: NDArray[Any], start: int, files: Files) -> None:
        """Multiply rows from `start` on by their scales."""
        columns = self.shape[1]
        if self.block is None:
            out *= _numbers(self.scales.value(files)).reshape(())
            return
        high, wide = self.block
        stop = start + len(out)
        first, last = start // high, -(-stop // high)
        for number, scales in enumerate(_numbers(self.scales.rows(first, last, files)), first):
            begin, end = max(number * high, start), min((number + 1) * high, stop)
            out[begin - start : end - start] *= np.repeat(scales, wide)[:columns]

    def working_bytes(self, rows: int) -> int:
        scales = self.scales.working_bytes(rows if len(self.shape) > 2 else min(rows, self.scales.row_count))
        held = self.held_bytes(rows)
        return (2 * held if len(self.shape) > 2 else held) + self.levels.working_bytes(rows) + 2 * scales

    def member(self, index: int) -> Expression:
        """The part `index` along axis 0, without that axis."""
        return Fp8Values(member(self.levels, index), member(self.scales, index), self.block)


def _floats(dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """The number that each byte stands for."""
    return np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)


def _numbers(scales: NDArray[Any]) -> NDArray[np.float32]:
    """Scales as numbers: bytes are exponents of two."""
    if scales.dtype == np.uint8:
        return np.ldexp(np.float32(1.0), scales.astype(np.int32) - EXPONENT_BIAS)
    return scales.astype(np.float32)
