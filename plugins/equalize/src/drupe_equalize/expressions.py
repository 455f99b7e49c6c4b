"""Expressions for the weights of equivalent models: rotated along or across their rows, with scaled rows, diagonal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe_equalize.hadamard import PIECE, rotate
from drupe_onnx import Access, Affine, Array, Expression, Files, as_type, ir, numeric

_FLOAT = ir.DataType.FLOAT
_BAND = 16 << 20  # bytes of float32 that are rotated at once where each column needs all rows


class Rotated(Expression):
    """The matrix `source` [N, K] times the rotation Q [K, K] with these signs: W Q, row by row, in float32.

    A linear layer becomes this if its input is rotated, and an embedding if its output is rotated.
    """

    source: Expression
    signs: Array

    def __post_init__(self) -> None:
        _check(self.source, self.signs, axis=1)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def dtype(self) -> ir.DataType:
        return _FLOAT

    @property
    def access(self) -> Access:
        return Access.ROWS if self.source.access == Access.ROWS else Access.WHOLE

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        out = files.empty((stop - start, self.shape[1]), np.float32)
        with files.passing():
            held = numeric.cast(self.source.rows(start, stop, files), _FLOAT, files)
            rotate(held[:, :, None], self.signs.values, out[:, :, None])
        return out

    def working_bytes(self, rows: int) -> int:
        pieces = 3 * max(4 * self.shape[1], min(PIECE, self.held_bytes(rows)))
        return self.source.working_bytes(rows) + 2 * self.held_bytes(rows) + pieces


class RotatedOutputs(Expression):
    """The transposed rotation Q^T [N, N] with these signs times the matrix `source` [N, K], in float32.

    A linear layer becomes this if its output is rotated. Each row needs all rows of the source, of which a band of
    columns is held at a time.
    """

    source: Expression
    signs: Array

    def __post_init__(self) -> None:
        _check(self.source, self.signs, axis=0)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def dtype(self) -> ir.DataType:
        return _FLOAT

    @property
    def access(self) -> Access:
        return Access.WHOLE

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        k = self.shape[1]
        out = files.empty((stop - start, k), np.float32)
        for first in range(0, k, self._band):
            last = min(first + self._band, k)
            with files.passing():
                out[:, first:last] = self.columns(first, last, files)[start:stop]
        return out

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        out = files.empty((self.shape[0], last - first), np.float32)
        with files.passing():
            held = numeric.cast(self.source.columns(first, last, files), _FLOAT, files)
            rotate(held[None], self.signs.values, out[None])
        return out

    @property
    def _band(self) -> int:
        """How many columns are held at once to produce rows."""
        return min(self.shape[1], max(1, _BAND // (4 * self.shape[0])))

    def working_bytes(self, rows: int) -> int:
        return self.held_bytes(rows) + self.column_bytes(self._band)

    def column_bytes(self, columns: int) -> int:
        held = 4 * self.shape[0] * columns
        pieces = 3 * max(4 * self.shape[0], min(PIECE, held))
        return self.source.column_bytes(columns) + 2 * held + pieces


class ScaledRows(Expression):
    """Each row of the matrix `source` [N, K] times a number: `scale` [N], float32. The result is float32."""

    source: Expression
    scale: Array

    def __post_init__(self) -> None:
        if self.scale.shape != self.source.shape[:1]:
            raise ValueError(f"scale of shape {self.scale.shape} is not one value for each row of {self.source.shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def dtype(self) -> ir.DataType:
        return _FLOAT

    @property
    def access(self) -> Access:
        return self.source.access

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return self._scaled(self.source.rows(start, stop, files), self.scale.values[start:stop], files)

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        return self._scaled(self.source.columns(first, last, files), self.scale.values, files)

    def _scaled(self, held: NDArray[Any], scale: NDArray[Any], files: Files) -> NDArray[Any]:
        out = files.empty(held.shape, np.float32)
        np.multiply(numeric.cast(held, _FLOAT, files), scale[:, None], out=out)
        return out

    def working_bytes(self, rows: int) -> int:
        return self.source.working_bytes(rows) + 2 * self.held_bytes(rows)

    def column_bytes(self, columns: int) -> int:
        return self.source.column_bytes(columns) + 8 * self.shape[0] * columns


class Diagonal(Expression):
    """The square matrix with the vector `source` on its diagonal, in float32."""

    source: Expression

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.source.shape[0], self.source.shape[0])

    @property
    def dtype(self) -> ir.DataType:
        return _FLOAT

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        out = files.empty((stop - start, self.shape[1]), np.float32)
        out[...] = 0
        out[np.arange(stop - start), np.arange(start, stop)] = self.source.rows(start, stop, files)
        return out

    def working_bytes(self, rows: int) -> int:
        return self.held_bytes(rows) + self.source.working_bytes(rows)


def scaled_columns(matrix: Expression, scale: Expression) -> Expression:
    """Each column times a number, in float32."""
    return Affine(as_type(matrix, ir.DataType.FLOAT), scale=as_type(scale, ir.DataType.FLOAT))


def _check(source: Expression, signs: Array, axis: int) -> None:
    if len(source.shape) != 2 or signs.shape != source.shape[axis : axis + 1]:
        raise ValueError(f"signs of shape {signs.shape} do not fit axis {axis} of {source.shape}")
