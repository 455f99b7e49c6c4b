"""Arranged expressions: values of other expressions, reordered, reshaped or selected."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from drupe.api import replace
from drupe_onnx import ir, numeric
from drupe_onnx.expressions.elementwise import Cast
from drupe_onnx.expressions.expression import Access, Expression, Shape
from drupe_onnx.expressions.sources import Array, Source
from drupe_onnx.files import Files


class HasRows(Protocol):
    """What has rows along axis 0."""

    @property
    def shape(self) -> Shape: ...


Part = TypeVar("Part", bound=HasRows)


def pieces_of(parts: Iterable[Part], start: int, stop: int) -> Iterator[tuple[Part, int, int]]:
    """Of parts whose rows follow each other: those that hold rows of [start, stop), each with the range of its own."""
    before = 0
    for part in parts:
        first, last = max(start - before, 0), min(stop - before, part.shape[0])
        if first < last:
            yield part, first, last
        before += part.shape[0]


class Joined(Expression):
    """The rows of several parts of one type, in an order that subclasses give."""

    parts: tuple[Expression, ...]

    @property
    def dtype(self) -> ir.DataType:
        return self.parts[0].dtype

    def column_bytes(self, columns: int) -> int:
        return self.held_bytes(self.shape[0]) * columns // self.shape[1] + max(
            part.column_bytes(columns) for part in self.parts
        )


class Concat(Joined):
    """Parts of one type, concatenated along axis 0."""

    def __post_init__(self) -> None:
        self._assign("parts", tuple(self.parts))
        if len({(part.dtype, part.shape[1:]) for part in self.parts}) != 1 or not all(p.shape for p in self.parts):
            raise ValueError(f"parts do not fit: {[(part.dtype.name, part.shape) for part in self.parts]}")

    @property
    def shape(self) -> Shape:
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        pieces = list(pieces_of(self.parts, start, stop))
        if len(pieces) == 1:
            return pieces[0][0].rows(*pieces[0][1:], files)
        out = files.empty((stop - start, *self.shape[1:]), self.dtype.numpy())
        done = 0
        for part, first, last in pieces:
            with files.passing():
                out[done : done + last - first] = part.rows(first, last, files)
            done += last - first
        return out

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        out = files.empty((self.shape[0], last - first), self.dtype.numpy())
        done = 0
        for part in self.parts:
            with files.passing():
                out[done : done + part.shape[0]] = part.columns(first, last, files)
            done += part.shape[0]
        return out

    def working_bytes(self, rows: int) -> int:
        return self.held_bytes(rows) + max(part.working_bytes(rows) for part in self.parts)


class Interleave(Joined):
    """The rows of several parts of one type and shape in turn: the first row of each, then the second of each, ..."""

    def __post_init__(self) -> None:
        self._assign("parts", tuple(self.parts))
        if len({(part.dtype, part.shape) for part in self.parts}) != 1 or not self.parts[0].shape:
            raise ValueError(f"parts do not fit: {[(part.dtype.name, part.shape) for part in self.parts]}")

    @property
    def shape(self) -> Shape:
        return (len(self.parts) * self.parts[0].shape[0], *self.parts[0].shape[1:])

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        count = len(self.parts)
        first, last = start // count, -(-stop // count)
        out = files.empty(((last - first) * count, *self.shape[1:]), self.dtype.numpy())
        for place, part in enumerate(self.parts):
            with files.passing():
                out[place::count] = part.rows(first, last, files)
        return out[start - first * count : stop - first * count]

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        out = files.empty((self.shape[0], last - first), self.dtype.numpy())
        for place, part in enumerate(self.parts):
            with files.passing():
                out[place :: len(self.parts)] = part.columns(first, last, files)
        return out

    def working_bytes(self, rows: int) -> int:
        each = min(rows // len(self.parts) + 2, self.parts[0].shape[0])
        return self.held_bytes(each * len(self.parts)) + max(part.working_bytes(each) for part in self.parts)


class Transpose(Expression):
    """A matrix [N, K] as [K, N]. It is written column by column, because its columns are rows of the source."""

    source: Expression

    def __post_init__(self) -> None:
        if len(self.source.shape) != 2:
            raise ValueError(f"Transpose takes a matrix, not a tensor of shape {self.source.shape}; use Permute")

    @property
    def dtype(self) -> ir.DataType:
        return self.source.dtype

    @property
    def shape(self) -> Shape:
        return self.source.shape[::-1]

    @property
    def access(self) -> Access:
        return {Access.ROWS: Access.TILES, Access.TILES: Access.ROWS}.get(self.source.access, Access.WHOLE)

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return numeric.transposed(self.source.columns(start, stop, files), files)

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        if self._narrow:
            return self._narrow.columns(first, last, files)
        return numeric.transposed(self.source.rows(first, last, files), files)

    @property
    def _narrow(self) -> Cast | None:
        """The same matrix with a widening cast after the transpose: half the bytes are transposed in half the time."""
        cast = self.source
        widens = isinstance(cast, Cast) and cast.source.dtype.bitwidth < cast.dtype.bitwidth
        return Cast(Transpose(cast.source), cast.dtype) if isinstance(cast, Cast) and widens else None

    def working_bytes(self, rows: int) -> int:
        return self.held_bytes(rows) + self.source.column_bytes(rows)

    def column_bytes(self, columns: int) -> int:
        if self._narrow:
            return self._narrow.column_bytes(columns)
        return self.source.held_bytes(columns) + self.source.working_bytes(columns)


class Permute(Expression):
    """Axes in another order, as in numpy's transpose. It is made whole unless axis 0 keeps its place."""

    source: Expression
    axes: tuple[int, ...]

    def __post_init__(self) -> None:
        self._assign("axes", tuple(self.axes))
        if sorted(self.axes) != list(range(len(self.source.shape))):
            raise ValueError(f"axes {self.axes} do not fit a tensor of shape {self.source.shape}")

    @property
    def dtype(self) -> ir.DataType:
        return self.source.dtype

    @property
    def shape(self) -> Shape:
        return tuple(self.source.shape[axis] for axis in self.axes)

    @property
    def access(self) -> Access:
        return self.source.access if self.axes[:1] in ((), (0,)) else Access.WHOLE

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        if self.access != Access.WHOLE:
            held = self.source.rows(start, stop, files)
            return np.ascontiguousarray(held.transpose(self.axes) if self.axes else held)
        return np.ascontiguousarray(self.source.value(files).transpose(self.axes)[start:stop])

    def working_bytes(self, rows: int) -> int:
        needed = rows if self.access != Access.WHOLE else self.source.row_count
        return self.held_bytes(rows) + self.source.working_bytes(needed)


class Reshape(Expression):
    """The same elements in the same order in another shape; one length may be -1."""

    source: Expression
    shape: Shape

    def __post_init__(self) -> None:
        known = math.prod(length for length in self.shape if length != -1)
        filled = tuple(self.source.size // max(1, known) if length == -1 else length for length in self.shape)
        self._assign("shape", filled)
        if math.prod(filled) != self.source.size:
            raise ValueError(f"a tensor of shape {self.source.shape} cannot be reshaped to {self.shape}")

    @property
    def dtype(self) -> ir.DataType:
        return self.source.dtype

    @property
    def access(self) -> Access:
        return Access.ROWS if self.source.access == Access.ROWS else Access.WHOLE

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        shape = (stop - start, *self.shape[1:])
        if not math.prod(shape):
            return np.empty(shape, self.dtype.numpy())
        begin, end = start * self.row_size, stop * self.row_size
        first, last = begin // self.source.row_size, -(-end // self.source.row_size)
        flat = self.source.rows(first, last, files).reshape(-1)
        skipped = first * self.source.row_size
        return flat[begin - skipped : end - skipped].reshape(shape)

    def working_bytes(self, rows: int) -> int:
        needed = -(-rows * self.row_size // max(1, self.source.row_size)) + 1
        return self.source.working_bytes(min(needed, self.source.row_count))


class RowRange(Expression):
    """Rows [first, last) of the source."""

    source: Expression
    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.last <= self.source.row_count:
            raise ValueError(f"rows {self.first} to {self.last} are not in a tensor of shape {self.source.shape}")

    @property
    def dtype(self) -> ir.DataType:
        return self.source.dtype

    @property
    def shape(self) -> Shape:
        return (self.last - self.first, *self.source.shape[1:])

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return self.source.rows(self.first + start, self.first + stop, files)

    def working_bytes(self, rows: int) -> int:
        return self.source.working_bytes(rows)

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        return self.source.columns(first, last, files)[self.first : self.last]

    def column_bytes(self, columns: int) -> int:
        return self.source.column_bytes(columns)


class Take(Expression):
    """Rows of the source by number, in the order of `indices`, as in numpy's take along axis 0."""

    source: Expression
    indices: Array

    def __post_init__(self) -> None:
        if not isinstance(self.indices, Array):
            self._assign("indices", Array(np.asarray(self.indices, np.int64)))
        held = self.indices.values
        if held.ndim != 1 or (held.size and not 0 <= held.min() <= held.max() < self.source.shape[0]):
            raise ValueError(f"indices do not fit a tensor of shape {self.source.shape}")

    @property
    def dtype(self) -> ir.DataType:
        return self.source.dtype

    @property
    def shape(self) -> Shape:
        return (len(self.indices.values), *self.source.shape[1:])

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        wanted = self.indices.values[start:stop]
        out = files.empty((stop - start, *self.shape[1:]), self.dtype.numpy())
        low, high = (int(wanted.min()), int(wanted.max()) + 1) if wanted.size else (0, 0)
        if high - low <= 2 * wanted.size:
            np.take(self.source.rows(low, high, files), wanted - low, axis=0, out=out, mode="clip")
            return out
        breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
        for run in np.split(np.arange(wanted.size), breaks):
            first = int(wanted[run[0]])
            with files.passing():
                out[run[0] : run[-1] + 1] = self.source.rows(first, first + run.size, files)
        return out

    def working_bytes(self, rows: int) -> int:
        return self.held_bytes(rows) + self.source.working_bytes(min(2 * rows, self.source.row_count))

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        taken: NDArray[Any] = self.source.columns(first, last, files)[self.indices.values]
        return taken

    def column_bytes(self, columns: int) -> int:
        return self.held_bytes(self.shape[0]) * columns // self.shape[1] + self.source.column_bytes(columns)


def member(tensor: Expression, index: int) -> Expression:
    """The part `index` along axis 0, without that axis: the matrix of one expert. Only its own bytes are read.

    An expression may have a method of this name, which knows better how to make it.
    """
    if (own := getattr(tensor, "member", None)) is not None:
        found: Expression = own(index)
        return found
    if isinstance(tensor, Source) and tensor.dtype.bitwidth >= 8:
        skipped = index * tensor.row_size * tensor.dtype.itemsize
        return replace(tensor, shape=tensor.shape[1:], offset=tensor.offset + int(skipped))
    return Reshape(RowRange(tensor, index, index + 1), tensor.shape[1:])
