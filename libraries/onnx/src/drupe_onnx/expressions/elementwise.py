"""Elementwise expressions: each value of another expression in another type, or scaled and shifted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError
from drupe_onnx import ir, numeric
from drupe_onnx.expressions.expression import Access, Expression, Shape
from drupe_onnx.expressions.origins import name_of
from drupe_onnx.files import Files


class Cast(Expression):
    """Another element type, rounded to the nearest, ties to even. A value too large for float16 is an error."""

    source: Expression
    dtype: ir.DataType

    @property
    def shape(self) -> Shape:
        return self.source.shape

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return self._cast(self.source.rows(start, stop, files), files)

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        return self._cast(self.source.columns(first, last, files), files)

    def _cast(self, held: NDArray[Any], files: Files) -> NDArray[Any]:
        return _narrowed(self.source, held, self.dtype, files)

    def working_bytes(self, rows: int) -> int:
        return self.held_bytes(rows) + self.source.working_bytes(rows)

    def column_bytes(self, columns: int) -> int:
        mine = self.shape[0] * columns * self.dtype.numpy().itemsize
        return mine + self.source.column_bytes(columns)


def as_type(expression: Expression, dtype: ir.DataType) -> Expression:
    """`expression` cast to a type; the expression itself where it has that type."""
    return expression if expression.dtype == dtype else Cast(expression, dtype)


def _narrowed(source: Expression, held: NDArray[Any], dtype: ir.DataType, files: Files) -> NDArray[Any]:
    """`held`, made from `source`, as `dtype`. Raises ModelError for a finite value that is too large for float16."""
    out = numeric.cast(held, dtype, files)
    if dtype != ir.DataType.FLOAT16 or out is held or numeric.all_finite(out):
        return out
    wide = held.astype(np.float64)
    too_large = np.abs(wide[np.isfinite(wide) & ~np.isfinite(out)])  # an Inf of the source stays one: masks hold it
    if too_large.size:
        raise ModelError(
            f"the tensor '{name_of(source)}' holds {too_large.max():.6g}; the largest float16 is 65504",
            cure="--precision bf16 or fp32",
        )
    return out


class Affine(Expression):
    """source * scale + offset, each a number or one value for each column (the last axis).

    The result is computed in float32 (float64 for a float64 source) and rounded once, to the type of the source. Where
    that type is too coarse, cast the source first.
    """

    source: Expression
    scale: Expression | float = 1.0
    offset: Expression | float = 0.0

    def __post_init__(self) -> None:
        for factor in (self.scale, self.offset):
            if isinstance(factor, Expression) and factor.size not in (1, *self.source.shape[-1:]):
                raise ValueError(f"shape {factor.shape} is not one value for each column of {self.source.shape}")

    @property
    def dtype(self) -> ir.DataType:
        return self.source.dtype

    @property
    def shape(self) -> Shape:
        return self.source.shape

    @property
    def access(self) -> Access:
        return self.source.access

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        if len(self.shape) == 1:  # its only axis is the last one
            return self._apply(self.source.rows(start, stop, files), slice(start, stop), files)
        return self._apply(self.source.rows(start, stop, files), slice(None), files)

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        return self._apply(self.source.columns(first, last, files), slice(first, last), files)

    def _apply(self, held: NDArray[Any], columns: slice, files: Files) -> NDArray[Any]:
        wide = ir.DataType.DOUBLE if self.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
        out = np.array(numeric.cast(held, wide, files))
        for operation, factor in ((np.multiply, self.scale), (np.add, self.offset)):
            if isinstance(factor, Expression):
                vector = numeric.cast(factor.value(files), wide, files).reshape(-1)
                operation(out, vector if vector.size == 1 else vector[columns], out=out)
            else:
                operation(out, out.dtype.type(factor), out=out)
        return _narrowed(self.source, out, self.dtype, files)

    def working_bytes(self, rows: int) -> int:
        wide = 8 if self.dtype == ir.DataType.DOUBLE else 4
        return self.source.working_bytes(rows) + self.held_bytes(rows) + 2 * wide * rows * self.row_size + self._vectors

    def column_bytes(self, columns: int) -> int:
        wide = 8 if self.dtype == ir.DataType.DOUBLE else 4
        mine = (2 * wide + self.dtype.numpy().itemsize) * self.shape[0] * columns
        return self.source.column_bytes(columns) + mine + self._vectors

    @property
    def _vectors(self) -> int:
        factors = (self.scale, self.offset)
        return sum(2 * each.working_bytes(each.row_count) for each in factors if isinstance(each, Expression))
