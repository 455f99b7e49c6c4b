"""Weight expressions of adapters: what they add to a matrix, and the matrix with it. All compute in float32.

The formulas are those of peft's `get_delta_weight` and `merge`.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe_blockquant import add_product
from drupe_onnx import Access, Expression, Files, ir, numeric
from drupe_onnx.expressions.expression import Shape

FLOAT = 4  # bytes
BLOCK = 256 << 10
"""Bytes of a matrix in float32 that are worked on at once, so that they stay in the cache."""
_NORMS = threading.Lock()


def _wide(tensor: Expression, files: Files) -> NDArray[Any]:
    """A whole small tensor in float32."""
    return numeric.cast(tensor.value(files), ir.DataType.FLOAT, files)


class _Float32(Expression):
    """An expression whose values are computed in float32."""

    @property
    def dtype(self) -> ir.DataType:
        return ir.DataType.FLOAT

    @property
    def access(self) -> Access:
        return Access.ROWS

    def column_bytes(self, columns: int) -> int:
        return 2 * FLOAT * self.shape[0] * columns + self.working_bytes(1)


class _Changed(Expression):
    """A tensor that an adapter changes. It keeps the type, the shape and the ways of reading it."""

    base: Expression

    @property
    def dtype(self) -> ir.DataType:
        return self.base.dtype

    @property
    def shape(self) -> Shape:
        return self.base.shape

    @property
    def access(self) -> Access:
        return self.base.access


class LowRank(_Float32):
    """The matrix [N, K] that is left [N, r] times right [r, K], times a number."""

    left: Expression
    right: Expression
    scale: float = 1.0

    @property
    def shape(self) -> Shape:
        return (self.left.shape[0], self.right.shape[1])

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        left = numeric.cast(self.left.rows(start, stop, files), ir.DataType.FLOAT, files)
        return self._product(left, _wide(self.right, files), files)

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        right = numeric.cast(self.right.columns(first, last, files), ir.DataType.FLOAT, files)
        return self._product(_wide(self.left, files), right, files)

    def _product(self, left: NDArray[Any], right: NDArray[Any], files: Files) -> NDArray[Any]:
        out = files.empty((left.shape[0], right.shape[1]), np.float32)
        scaled = left if self.scale == 1 else left * np.float32(self.scale)
        np.matmul(scaled, right, out=out)
        return out

    def working_bytes(self, rows: int) -> int:
        small = self.left.working_bytes(rows) + self.right.working_bytes(self.right.row_count)
        return self.held_bytes(rows) + small + 2 * FLOAT * (rows * self.left.shape[1] + self.right.size)

    def column_bytes(self, columns: int) -> int:
        small = self.left.working_bytes(self.left.row_count) + self.right.column_bytes(columns)
        return FLOAT * (self.shape[0] * columns + 2 * self.left.size + self.right.shape[0] * columns) + small


class ProductOfElements(_Float32):
    """Two matrices of one shape, multiplied element by element, times a number (LoHa)."""

    one: Expression
    other: Expression
    scale: float = 1.0

    @property
    def shape(self) -> Shape:
        return self.one.shape

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return self._product(self.one.rows(start, stop, files), self.other.rows(start, stop, files))

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        return self._product(self.one.columns(first, last, files), self.other.columns(first, last, files))

    def _product(self, one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
        np.multiply(one, other, out=one)
        np.multiply(one, np.float32(self.scale), out=one)
        return one

    def working_bytes(self, rows: int) -> int:
        return self.one.working_bytes(rows) + self.other.working_bytes(rows)

    def column_bytes(self, columns: int) -> int:
        return self.one.column_bytes(columns) + self.other.column_bytes(columns)


class Kronecker(_Float32):
    """The Kronecker product [a * b, c * d] of outer [a, c] and inner [b, d], times a number (LoKr)."""

    outer: Expression
    inner: Expression
    scale: float = 1.0

    @property
    def shape(self) -> Shape:
        return (self.outer.shape[0] * self.inner.shape[0], self.outer.shape[1] * self.inner.shape[1])

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        outer, inner = _wide(self.outer, files) * np.float32(self.scale), _wide(self.inner, files)
        at, within = np.divmod(np.arange(start, stop), inner.shape[0])
        out = files.empty((stop - start, outer.shape[1], inner.shape[1]), np.float32)
        np.multiply(outer[at][:, :, None], inner[within][:, None, :], out=out)
        return out.reshape(stop - start, self.shape[1])

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        outer, inner = _wide(self.outer, files) * np.float32(self.scale), _wide(self.inner, files)
        at, within = np.divmod(np.arange(first, last), inner.shape[1])
        out = files.empty((outer.shape[0], inner.shape[0], last - first), np.float32)
        np.multiply(outer[:, at][:, None, :], inner[:, within][None, :, :], out=out)
        return out.reshape(self.shape[0], last - first)

    def working_bytes(self, rows: int) -> int:
        parts = sum(each.working_bytes(each.row_count) + 2 * FLOAT * each.size for each in (self.outer, self.inner))
        return self.held_bytes(rows) + parts + FLOAT * rows * (self.outer.shape[1] + self.inner.shape[1])


class Merged(_Changed, dict=True):
    """A tensor with what adapters add to it: base + sum of weight * change, rounded once, to the type of the base."""

    changes: tuple[Expression, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        for change in self.changes:
            if change.shape != self.base.shape:
                raise ValueError(f"a change of shape {change.shape} does not fit a tensor of {self.base.shape}")

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        out = files.empty((stop - start, *self.shape[1:]), self.dtype.numpy())
        if (products := self._products) is not None:
            with files.passing():
                self._add_products(products, self.base.rows(start, stop, files), start, stop, out, files)
            return out
        step = max(1, BLOCK // max(1, FLOAT * self.row_size))
        for first in range(start, stop, step):
            last = min(first + step, stop)
            with files.passing():
                held = self.base.rows(first, last, files)
                changes = (change.rows(first, last, files) for change in self.changes)
                self._add(held, changes, out[first - start : last - start], files)
        return out

    @functools.cached_property
    def _products(self) -> tuple[LowRank, ...] | None:
        """The changes, where all are products of narrow matrices, which are added faster."""
        found = tuple(each for each in self.changes if isinstance(each, LowRank))
        return found if len(found) == len(self.changes) else None

    def _add_products(
        self, products: tuple[LowRank, ...], held: NDArray[Any], start: int, stop: int, out: NDArray[Any], files: Files
    ) -> None:
        """As one product: the narrow matrices stand beside each other."""
        lefts = [
            _times(each.left.rows(start, stop, files), each.scale * weight, files)
            for each, weight in zip(products, self.weights, strict=True)
        ]
        rights = [_wide(each.right, files) for each in products]
        if len(products) == 1:
            add_product(held, lefts[0], rights[0], out)
        else:
            add_product(held, np.concatenate(lefts, axis=1), np.concatenate(rights), out)

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        out = files.empty((self.shape[0], last - first), self.dtype.numpy())
        with files.passing():
            held = self.base.columns(first, last, files)
            self._add(held, (change.columns(first, last, files) for change in self.changes), out, files)
        return out

    def _add(self, held: NDArray[Any], changes: Any, out: NDArray[Any], files: Files) -> None:
        wide = _own_float32(held, files)
        for change, weight in zip(changes, self.weights, strict=True):
            if weight == 1:
                np.add(wide, change, out=wide)
            else:
                np.add(wide, change * np.float32(weight), out=wide)
        _round(wide, out, files)

    def working_bytes(self, rows: int) -> int:
        if (products := self._products) is not None:
            narrow = sum(
                each.left.working_bytes(rows)
                + each.right.working_bytes(each.right.row_count)
                + 2 * FLOAT * (rows * each.left.shape[1] + each.right.size)
                for each in products
            )
            return self.held_bytes(rows) + self.base.working_bytes(rows) + narrow
        at_once = min(rows, max(1, BLOCK // max(1, FLOAT * self.row_size)))
        changes = sum(change.working_bytes(at_once) for change in self.changes)
        return self.held_bytes(rows) + self.base.working_bytes(at_once) + changes + 3 * FLOAT * at_once * self.row_size

    def column_bytes(self, columns: int) -> int:
        changes = sum(change.column_bytes(columns) for change in self.changes)
        return self.base.column_bytes(columns) + changes + 4 * FLOAT * self.shape[0] * columns


class Difference(_Float32):
    """What replacing a tensor adds to it: new - old."""

    new: Expression
    old: Expression

    @property
    def shape(self) -> Shape:
        return self.new.shape

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return self._difference(self.new.rows(start, stop, files), self.old.rows(start, stop, files), files)

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        return self._difference(self.new.columns(first, last, files), self.old.columns(first, last, files), files)

    def _difference(self, new: NDArray[Any], old: NDArray[Any], files: Files) -> NDArray[Any]:
        out = _own_float32(new, files)
        np.subtract(out, numeric.cast(old, ir.DataType.FLOAT, files), out=out)
        return out

    def working_bytes(self, rows: int) -> int:
        return self.new.working_bytes(rows) + self.old.working_bytes(rows) + 2 * self.held_bytes(rows)

    def column_bytes(self, columns: int) -> int:
        return self.new.column_bytes(columns) + self.old.column_bytes(columns) + 2 * FLOAT * self.shape[0] * columns


class Decomposed(_Changed, dict=True):
    """DoRA: (base + change), each row brought to the length that `magnitude` says.

    by_column: each column instead, for matrices that are stored as [inputs, outputs], and for embeddings.
    """

    change: Expression
    magnitude: Expression
    by_column: bool = False

    @property
    def access(self) -> Access:
        return Access.ROWS

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        out = files.empty((stop - start, self.shape[1]), self.dtype.numpy())
        factors = self._column_factors if self.by_column else None
        step = max(1, BLOCK // (FLOAT * self.shape[1]))
        for first in range(start, stop, step):
            last = min(first + step, stop)
            with files.passing():
                wide = self._sum(first, last, files)
                if factors is None:
                    length = np.sqrt(np.einsum("nk,nk->n", wide, wide))
                    wanted = numeric.cast(self.magnitude.rows(first, last, files), ir.DataType.FLOAT, files)
                    np.multiply(wide, (wanted / length)[:, None], out=wide)
                else:
                    np.multiply(wide, factors, out=wide)
                _round(wide, out[first - start : last - start], files)
        return out

    def _sum(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        wide = _own_float32(self.base.rows(start, stop, files), files)
        np.add(wide, self.change.rows(start, stop, files), out=wide)
        return wide

    @functools.cached_property
    def _lengths(self) -> NDArray[Any]:
        """The length of each column, for which the whole matrix is read once."""
        total = np.zeros(self.shape[1], np.float64)
        step = max(1, BLOCK // (FLOAT * self.shape[1]))
        with Files() as files:
            for start in range(0, self.shape[0], step):
                wide = self._sum(start, min(start + step, self.shape[0]), files)
                total += np.einsum("nk,nk->k", wide, wide)
        return np.sqrt(total)

    @property
    def _column_factors(self) -> NDArray[Any]:
        with _NORMS, Files() as files:
            factors: NDArray[Any] = (_wide(self.magnitude, files) / self._lengths).astype(np.float32)
            return factors

    def working_bytes(self, rows: int) -> int:
        at_once = min(rows, max(1, BLOCK // (FLOAT * self.shape[1])))
        parts = self.base.working_bytes(at_once) + self.change.working_bytes(at_once)
        return self.held_bytes(rows) + parts + 3 * FLOAT * at_once * self.shape[1] + 16 * max(self.shape)


class RowsReplaced(_Changed):
    """A matrix of which some rows, by number, are those of another (single tokens of an embedding)."""

    new: Expression
    places: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.new.shape != (len(self.places), *self.base.shape[1:]):
            raise ValueError(f"{len(self.places)} rows of {self.base.shape} do not have the shape {self.new.shape}")

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        out = np.array(self.base.rows(start, stop, files))
        for at, place in enumerate(self.places):
            if start <= place < stop:
                out[place - start] = numeric.cast(self.new.rows(at, at + 1, files), self.dtype, files)[0]
        return out

    def working_bytes(self, rows: int) -> int:
        return self.base.working_bytes(rows) + self.held_bytes(rows) + 2 * self.new.held_bytes(1)


def _times(held: NDArray[Any], factor: float, files: Files) -> NDArray[Any]:
    """Values times a number, in float32."""
    wide = numeric.cast(held, ir.DataType.FLOAT, files)
    return wide if factor == 1 else np.multiply(wide, np.float32(factor), out=files.empty(wide.shape, np.float32))


def _own_float32(held: NDArray[Any], files: Files) -> NDArray[Any]:
    """Values in float32, in memory that may be written."""
    wide = numeric.cast(held, ir.DataType.FLOAT, files)
    if wide is not held:
        return wide
    out = files.empty(held.shape, np.float32)
    np.copyto(out, held)
    return out


def _round(wide: NDArray[Any], out: NDArray[Any], files: Files) -> None:
    """Write float32 values into `out`, rounded to its type, to the nearest, ties to even."""
    if ir.DataType.from_numpy(out.dtype) == ir.DataType.BFLOAT16:  # the upper half of a float32
        bits = wide.view(np.uint32)
        odd = files.empty(wide.shape, np.uint32)
        np.right_shift(bits, 16, out=odd)
        np.bitwise_and(odd, 1, out=odd)
        np.add(odd, np.uint32(0x7FFF), out=odd)
        np.add(bits, odd, out=bits)
        np.copyto(out.view(np.uint16), bits.view(np.uint16)[..., 1::2])
    else:
        np.copyto(out, numeric.cast(wide, ir.DataType.from_numpy(out.dtype), files))
