"""Sources: expressions without inputs, whose values are read from a file or held in memory."""

from __future__ import annotations

import functools
import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError
from drupe_onnx import ir, numeric
from drupe_onnx.expressions.expression import Expression, Shape
from drupe_onnx.files import Files

_CHECKED = 1 << 20  # bytes that are read and then checked for NaN and Inf while they are in the cache
_NARROW = 1 << 10  # bytes: reading shorter pieces of rows is slower than reading whole rows, because of the calls


class Source(Expression):
    """A tensor that lies row by row in a file, from `offset` on, little-endian."""

    if TYPE_CHECKING:

        @property
        def path(self) -> Path: ...

        @property
        def offset(self) -> int: ...

    @property
    def label(self) -> str:
        """The name of the tensor in messages."""
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
            cure="download or train the checkpoint again: a model whose weights are NaN or Inf does not work",
        )

    def _unpacked(self, skipped: int, count: int, files: Files) -> NDArray[Any]:
        per_byte = 8 // self.dtype.bitwidth
        first, last = skipped // per_byte, -(-(skipped + count) // per_byte)
        raw = files.read(self.path, self.offset + first, last - first)
        return numeric.unpacked(raw, self.dtype, count, skipped - first * per_byte)


def _name_of(value: Any) -> str:
    return "NaN" if math.isnan(float(value)) else "Inf"


class SafetensorsTensor(Source):
    """A tensor in a safetensors file. `offset` counts from the start of the file. NaN and Inf are errors."""

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


class ExternalTensor(Source):
    """A tensor in an ONNX external-data file. It may hold Inf, as masks do."""

    path: Path
    dtype: ir.DataType
    shape: Shape
    offset: int

    @property
    def label(self) -> str:
        return f"{self.path.name}, from byte {self.offset}"


class Array(Expression, eq=False, dict=True):
    """Values in memory, for small tensors or values just computed. Arrays with equal contents are equal."""

    values: NDArray[Any]

    def __post_init__(self) -> None:
        values = np.array(self.values, order="C")
        values.setflags(write=False)
        self._assign("values", values)

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


class Identities(Expression):
    """One matrix [rows, columns] after the other, `count` of them, each with ones where row and column are the same."""

    count: int
    rows_each: int
    width: int
    dtype: ir.DataType = ir.DataType.FLOAT

    @property
    def shape(self) -> Shape:
        return (self.count * self.rows_each, self.width)

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        out = np.zeros((stop - start, self.width), self.dtype.numpy())
        places = np.arange(start, stop) % self.rows_each
        held = np.flatnonzero(places < self.width)
        out[held, places[held]] = 1
        return out

    def working_bytes(self, rows: int) -> int:
        return self.held_bytes(rows)
