"""Expressions: what a weight is, as frozen data: where its bytes are and what is done to them."""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import hashlib
import importlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError, Progress
from drupe_onnx import ir, numeric
from drupe_onnx.files import Files

_CHECKED = 1 << 20  # bytes that are read and then checked for NaN and Inf while they are in the cache
_BAND = 4 << 20  # bytes of source that are read at once where columns have no better way
_NARROW = 1 << 10  # bytes: pieces of rows that are shorter than this cost more calls than reading the rows whole

Shape = tuple[int, ...]


class Access(enum.IntEnum):
    """How an expression is produced without holding it whole.

    ROWS: a range of rows needs a range of rows of what it is made from. TILES: a matrix, whose ranges of columns come
    as cheaply as its rows do elsewhere (a transpose). WHOLE: nothing of it comes without all of it.
    """

    ROWS = 0
    TILES = 1
    WHOLE = 2


class Expression(ABC):
    """A tensor that is not there yet.

    A complete expression, which a plugin may define; it is serialised by its fields and found again by import path::

        @dataclass(frozen=True)
        class Negate(Expression):
            source: Expression

            shape = property(lambda self: self.source.shape)
            dtype = property(lambda self: self.source.dtype)

            def rows(self, start, stop, files):
                return -self.source.rows(start, stop, files)

            def working_bytes(self, rows):
                return self.source.working_bytes(rows) + self.held_bytes(rows)
    """

    if TYPE_CHECKING:

        @property
        def shape(self) -> Shape: ...

        @property
        def dtype(self) -> ir.DataType: ...

    @abstractmethod
    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        """Rows [start, stop) along axis 0, contiguous, in `dtype.numpy()`; a scalar has one row.

        The array may live in memory of `files` (see Files.empty): it is for reading, and for now.
        """

    @abstractmethod
    def working_bytes(self, rows: int) -> int:
        """The most bytes that are held at once while `rows` rows are produced, the result included."""

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        """Columns [first, last) of a matrix, all rows of them; here by walking over all rows in bands."""
        out = files.empty((self.shape[0], last - first), self.dtype.numpy())
        step = max(1, _BAND // max(1, self.working_bytes(1)))
        for start in range(0, self.shape[0], step):
            stop = min(start + step, self.shape[0])
            with files.passing():
                out[start:stop] = self.rows(start, stop, files)[:, first:last]
        return out

    def column_bytes(self, columns: int) -> int:
        """The most bytes that are held at once while `columns` columns are produced."""
        return self.shape[0] * columns * self.dtype.numpy().itemsize + max(_BAND, self.working_bytes(1))

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """The expressions that this one is made from: those among its fields."""
        return tuple(_expressions_in(self))

    @property
    def access(self) -> Access:
        """How it can be produced; by default as what it is made from."""
        return max((each.access for each in self.inputs), default=Access.ROWS)

    @property
    def row_count(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def row_size(self) -> int:
        """Elements in a row."""
        return math.prod(self.shape[1:])

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes it takes in a file."""
        return -(-self.size * self.dtype.bitwidth // 8)

    def held_bytes(self, rows: int) -> int:
        """Bytes that `rows` rows of it take in memory."""
        return rows * self.row_size * self.dtype.numpy().itemsize

    def value(self, files: Files) -> NDArray[Any]:
        """All of it, in its own shape."""
        return self.rows(0, self.row_count, files).reshape(self.shape)


def _expressions_in(holder: Any) -> Iterator[Expression]:
    for field in dataclasses.fields(holder):
        found = getattr(holder, field.name)
        if isinstance(found, Expression):
            yield found
        elif isinstance(found, tuple):
            yield from (each for each in found if isinstance(each, Expression))


# Sources


class Source(Expression):
    """A tensor that lies row by row in a file, from `offset` on, little-endian."""

    if TYPE_CHECKING:

        @property
        def path(self) -> Path: ...

        @property
        def offset(self) -> int: ...

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return self.path.name

    @property
    def checked(self) -> bool:
        """Whether reading a NaN or Inf is an error."""
        return False

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        shape = (stop - start, *self.shape[1:])
        count = math.prod(shape)
        skipped = start * self.row_size
        if self.dtype.bitwidth < 8:
            return self._unpacked(skipped, count, files).reshape(shape)
        out = files.empty(count, self.dtype.numpy())
        offset = self.offset + skipped * out.itemsize
        checked = self.checked and not files.trusts
        step = _CHECKED // out.itemsize if checked else max(1, count)
        for first in range(0, count, step):
            block = out[first : first + step]
            files.read_into(self.path, offset + first * out.itemsize, block)
            if checked:
                self._check(block, skipped + first)
        return out.reshape(shape)

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        rows, width = self.shape
        itemsize = self.dtype.numpy().itemsize
        piece = (last - first) * itemsize
        if self.dtype.bitwidth < 8 or last - first == width or piece < min(_NARROW, width * itemsize // 8):
            return super().columns(first, last, files)
        out = files.empty((rows, last - first), self.dtype.numpy())
        for row in range(rows):
            files.read_into(self.path, self.offset + (row * width + first) * itemsize, out[row])
        if self.checked and not files.trusts and not numeric.all_finite(out):
            row, column = numeric.first_not_finite(out)
            self._refuse(out[row, column], row * width + first + column)
        return out

    def working_bytes(self, rows: int) -> int:
        return self.held_bytes(rows)

    def _check(self, block: NDArray[Any], position: int) -> None:
        if not numeric.all_finite(block):
            (at,) = numeric.first_not_finite(block)
            self._refuse(block[at], position + at)

    def _refuse(self, value: Any, position: int) -> None:
        index = [int(each) for each in np.unravel_index(position, self.shape or (1,))]
        raise ModelError(
            f"the tensor '{self.label}' holds {_name_of(value)}, first at {index}",
            where=self.path,
            cure="fetch the checkpoint again, or train it again: a model with NaN or Inf in it computes nothing",
        )

    def _unpacked(self, skipped: int, count: int, files: Files) -> NDArray[Any]:
        per_byte = 8 // self.dtype.bitwidth
        first, last = skipped // per_byte, -(-(skipped + count) // per_byte)
        raw = files.read(self.path, self.offset + first, last - first)
        return numeric.unpacked(raw, self.dtype, count, skipped - first * per_byte)


def _name_of(value: Any) -> str:
    return "NaN" if math.isnan(float(value)) else "Inf"


@dataclass(frozen=True)
class SafetensorsTensor(Source):
    """A tensor in a safetensors file; `offset` counts from the start of the file. NaN and Inf in it are errors."""

    path: Path
    name: str
    dtype: ir.DataType
    shape: Shape
    offset: int

    @property
    def label(self) -> str:
        return self.name

    @property
    def checked(self) -> bool:
        return self.dtype.is_floating_point()


@dataclass(frozen=True)
class ExternalTensor(Source):
    """A tensor in an ONNX external-data file. It may hold Inf: masks do."""

    path: Path
    dtype: ir.DataType
    shape: Shape
    offset: int


@dataclass(frozen=True, eq=False)
class Array(Expression):
    """Values in memory, for what is small or was just computed. Equal contents make equal expressions."""

    values: NDArray[Any]

    def __post_init__(self) -> None:
        values = np.array(self.values, order="C")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    @property
    def shape(self) -> Shape:
        return self.values.shape

    @functools.cached_property
    def dtype(self) -> ir.DataType:
        return ir.DataType.from_numpy(self.values.dtype)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of type, shape and bytes."""
        head = f"{self.dtype.name}{self.shape}".encode()
        return hashlib.sha256(head + self.values.tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return self.values.reshape(self.row_count, *self.shape[1:])[start:stop]

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        return self.values[:, first:last]

    def working_bytes(self, rows: int) -> int:
        return 0

    def column_bytes(self, columns: int) -> int:
        return 0


# Derived


@dataclass(frozen=True)
class Concat(Expression):
    """Parts of one type behind one another along axis 0."""

    parts: tuple[Expression, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if len({(part.dtype, part.shape[1:]) for part in self.parts}) != 1 or not all(p.shape for p in self.parts):
            raise ValueError(f"parts do not fit: {[(part.dtype.name, part.shape) for part in self.parts]}")

    @property
    def dtype(self) -> ir.DataType:
        return self.parts[0].dtype

    @property
    def shape(self) -> Shape:
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        pieces = list(self._pieces(start, stop))
        if len(pieces) == 1:
            return pieces[0][0].rows(*pieces[0][1:], files)
        out = files.empty((stop - start, *self.shape[1:]), self.dtype.numpy())
        done = 0
        for part, first, last in pieces:
            with files.passing():
                out[done : done + last - first] = part.rows(first, last, files)
            done += last - first
        return out

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[Expression, int, int]]:
        """The parts that hold rows of [start, stop), each with the range of its own rows."""
        before = 0
        for part in self.parts:
            first, last = max(start - before, 0), min(stop - before, part.shape[0])
            if first < last:
                yield part, first, last
            before += part.shape[0]

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

    def column_bytes(self, columns: int) -> int:
        return self.held_bytes(self.shape[0]) * columns // self.shape[1] + max(
            part.column_bytes(columns) for part in self.parts
        )


@dataclass(frozen=True)
class Transpose(Expression):
    """A matrix [N, K] as [K, N]. Its columns are rows of the source: that is how it is written."""

    source: Expression

    def __post_init__(self) -> None:
        if len(self.source.shape) != 2:
            raise ValueError(f"a transpose wants a matrix, not {self.source.shape}; see Permute")

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
        """The same with a widening cast after the transpose, which takes half the time for half the bytes."""
        cast = self.source
        widens = isinstance(cast, Cast) and cast.source.dtype.bitwidth < cast.dtype.bitwidth
        return Cast(Transpose(cast.source), cast.dtype) if isinstance(cast, Cast) and widens else None

    def working_bytes(self, rows: int) -> int:
        return self.held_bytes(rows) + self.source.column_bytes(rows)

    def column_bytes(self, columns: int) -> int:
        if self._narrow:
            return self._narrow.column_bytes(columns)
        return self.source.held_bytes(columns) + self.source.working_bytes(columns)


@dataclass(frozen=True)
class Permute(Expression):
    """Axes in another order, as numpy's transpose does it. Made whole unless axis 0 stays where it is."""

    source: Expression
    axes: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
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


@dataclass(frozen=True)
class Reshape(Expression):
    """The same elements in the same order in another shape; one length may be -1."""

    source: Expression
    shape: Shape

    def __post_init__(self) -> None:
        known = math.prod(length for length in self.shape if length != -1)
        filled = tuple(self.source.size // max(1, known) if length == -1 else length for length in self.shape)
        object.__setattr__(self, "shape", filled)
        if math.prod(filled) != self.source.size:
            raise ValueError(f"{self.source.shape} does not reshape to {self.shape}")

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


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Take(Expression):
    """Rows of the source by number, in the order of `indices`, as numpy's take along axis 0 does it."""

    source: Expression
    indices: Array

    def __post_init__(self) -> None:
        if not isinstance(self.indices, Array):
            object.__setattr__(self, "indices", Array(np.asarray(self.indices, np.int64)))
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


@dataclass(frozen=True)
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


def _narrowed(source: Expression, held: NDArray[Any], dtype: ir.DataType, files: Files) -> NDArray[Any]:
    """`held`, made from `source`, as `dtype`. Raises ModelError for a finite value that is too large for float16."""
    out = numeric.cast(held, dtype, files)
    if dtype != ir.DataType.FLOAT16 or out is held or numeric.all_finite(out):
        return out
    wide = held.astype(np.float64)
    too_large = np.abs(wide[np.isfinite(wide) & ~np.isfinite(out)])  # an Inf of the source stays one: masks hold it
    if too_large.size:
        raise ModelError(
            f"the tensor '{name_of(source)}' holds {too_large.max():.6g}; float16 ends at 65504",
            cure="--precision bf16 or fp32",
        )
    return out


@dataclass(frozen=True)
class Affine(Expression):
    """source * scale + offset, each a number or one value a column (the last axis).

    Computed in float32 (float64 for a float64 source) and rounded once, to the type of the source: cast the source
    first where that is too coarse.
    """

    source: Expression
    scale: Expression | float = 1.0
    offset: Expression | float = 0.0

    def __post_init__(self) -> None:
        for factor in (self.scale, self.offset):
            if isinstance(factor, Expression) and factor.size not in (1, *self.source.shape[-1:]):
                raise ValueError(f"{factor.shape} is not one value a column of {self.source.shape}")

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


# Several results of one walk


@dataclass(frozen=True)
class OutputSpec:
    """One result of a producer; `shape[0]` is the producer's `rows`."""

    name: str
    shape: Shape
    dtype: ir.DataType


class Producer(ABC):
    """Several tensors from one walk over rows, such as packed weights, scales and zero points.

    A frozen dataclass, serialised by its fields and found again by import path. Each output has `rows` rows.
    """

    if TYPE_CHECKING:

        @property
        def outputs(self) -> tuple[OutputSpec, ...]: ...

        @property
        def rows(self) -> int: ...

        @property
        def label(self) -> str:
            """What it does to what, for errors and progress: "quantize model.layers.0.mlp.up_proj.weight"."""

    def prepare(self, progress: Progress) -> None:  # noqa: B027
        """Make ready what `produce` needs, such as compiled code; `progress` is for what takes seconds."""

    @abstractmethod
    def produce(self, start: int, stop: int, files: Files) -> tuple[NDArray[Any], ...]:
        """Rows [start, stop) of each output, contiguous; called from several threads at once."""

    @abstractmethod
    def working_bytes(self, rows: int) -> int:
        """The most bytes that are held at once while `rows` rows are produced, the results included."""

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """The expressions that it reads: those among its fields."""
        return tuple(_expressions_in(self))


@dataclass(frozen=True)
class Produced(Expression):
    """One output of a producer. The writer makes all outputs of equal producers in one walk."""

    producer: Producer
    index: int

    @property
    def dtype(self) -> ir.DataType:
        return self.producer.outputs[self.index].dtype

    @property
    def shape(self) -> Shape:
        return self.producer.outputs[self.index].shape

    @property
    def inputs(self) -> tuple[Expression, ...]:
        return self.producer.inputs

    @property
    def access(self) -> Access:
        return Access.ROWS

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return self.producer.produce(start, stop, files)[self.index]

    def working_bytes(self, rows: int) -> int:
        return self.producer.working_bytes(rows)


# What can be asked of any of them


def sources(expression: Expression | Producer) -> Iterator[Expression]:
    """The expressions at the ends: what is read or held, each as often as it is named."""
    if isinstance(expression, Expression) and not expression.inputs:
        yield expression
    for each in expression.inputs:
        yield from sources(each)


def name_of(expression: Expression | Producer) -> str:
    """The name to tell a user: that of the first source that has one."""
    named = [each.label for each in sources(expression) if isinstance(each, Source)]
    return named[0] if named else "a computed tensor"


# As data


class Codec:
    """How the parts of an expression that are not plain JSON are kept; by default in place."""

    def keep_array(self, values: NDArray[Any]) -> Any:
        dtype = ir.DataType.from_numpy(values.dtype)
        data = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
        return {"dtype": dtype.name, "shape": list(values.shape), "base64": data}

    def find_array(self, document: Any) -> NDArray[Any]:
        raw = np.frombuffer(base64.b64decode(document["base64"]), np.uint8)
        return raw.view(ir.DataType[document["dtype"]].numpy()).reshape(document["shape"])

    def keep_path(self, path: Path) -> Any:
        return str(path.absolute())

    def find_path(self, document: Any) -> Path:
        return Path(document)


def to_json(expression: Expression, codec: Codec | None = None) -> Any:
    """`expression` as what `json.dumps` takes."""
    return _to_json(expression, codec or Codec())


def from_json(document: Any, codec: Codec | None = None) -> Expression:
    """What `to_json` made, again. Raises ModelError for a kind that is not installed here."""
    expression = _from_json(document, codec or Codec())
    if not isinstance(expression, Expression):
        raise ModelError("the document holds no weight expression")
    return expression


def file_stamp(path: Path) -> tuple[str, int, int]:
    """What stands for a file: absolute path, size, time of change in ns. Raises ModelError where there is none."""
    try:
        status = path.stat()
    except OSError as error:
        raise ModelError(f"the file '{path.name}' is not there any more", where=path) from error
    return str(path.absolute()), status.st_size, status.st_mtime_ns


def fingerprint(expression: Expression, stamp: Callable[[Path], Any] = file_stamp) -> str:
    """SHA-256 of what the expression gives. stamp: what stands for a file's content.

    Raises ModelError for a file that is not there.
    """
    document = _to_json(expression, _Stamps(stamp))
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


class _Stamps(Codec):
    def __init__(self, stamp: Callable[[Path], Any]) -> None:
        self._stamp = stamp

    def keep_array(self, values: NDArray[Any]) -> Any:
        return Array(values).digest

    def keep_path(self, path: Path) -> Any:
        return self._stamp(path)


def _to_json(value: Any, codec: Codec) -> Any:
    if isinstance(value, ir.DataType):
        return {"kind": "dtype", "name": value.name}
    if isinstance(value, enum.Enum):
        return {"kind": "enum", "type": _path_of(type(value)), "name": value.name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _to_json(value.item(), codec)
    if isinstance(value, tuple | list):
        return [_to_json(each, codec) for each in value]
    if isinstance(value, dict):
        return {"kind": "dict", "items": [[_to_json(key, codec), _to_json(each, codec)] for key, each in value.items()]}
    if isinstance(value, Path):
        return {"kind": "path", "path": codec.keep_path(value)}
    if isinstance(value, np.ndarray):
        return {"kind": "array", "array": codec.keep_array(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = [field.name for field in dataclasses.fields(value) if field.init]
        return {
            "kind": _path_of(type(value)),
            "fields": {name: _to_json(getattr(value, name), codec) for name in given},
        }
    raise TypeError(f"a {type(value).__name__} in a weight expression cannot be serialised")


def _from_json(value: Any, codec: Codec) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(each, codec) for each in value)
    if not isinstance(value, dict):
        return value
    match value["kind"]:
        case "dtype":
            return ir.DataType[value["name"]]
        case "enum":
            return _find(value["type"])[value["name"]]
        case "dict":
            return {_from_json(key, codec): _from_json(each, codec) for key, each in value["items"]}
        case "path":
            return codec.find_path(value["path"])
        case "array":
            return codec.find_array(value["array"])
        case kind:
            return _find(kind)(**{name: _from_json(each, codec) for name, each in value["fields"].items()})


def _path_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


@functools.cache
def _find(path: str) -> Any:
    """The class at an import path; only what `to_json` writes is accepted: dataclasses and enums."""
    module, _, name = path.partition(":")
    try:
        found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"the weight expression '{path}' is not installed here",
            cure=f"install the plugin that brings the module '{module.split('.')[0]}'; drupe plugins lists them",
        ) from error
    if not (dataclasses.is_dataclass(found) or (isinstance(found, type) and issubclass(found, enum.Enum))):
        raise ModelError(f"'{path}' is no weight expression")
    return found
