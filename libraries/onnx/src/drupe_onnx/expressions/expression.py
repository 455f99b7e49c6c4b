"""Expression: frozen data that describes a tensor, and the ways of producing the tensor piece by piece."""

from __future__ import annotations

import enum
import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from drupe.api import Record
from drupe_onnx import ir
from drupe_onnx.files import Files

_BAND = 4 << 20  # bytes of the source that are read at once where an expression has no better way to give columns

Shape = tuple[int, ...]


class Access(enum.IntEnum):
    """How an expression is produced without holding it whole.

    ROWS: a range of rows needs only a range of rows of the inputs. TILES: a matrix (a transpose) whose ranges of
    columns are as cheap as ranges of rows are for ROWS. WHOLE: any range needs all of the inputs.
    """

    ROWS = 0
    TILES = 1
    WHOLE = 2


class Expression(Record):
    """A description of a tensor that is computed later.

    A plugin may define expressions. They are serialised by their fields and found again by import path. An example::

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

        The array may lie in memory of `files` that is used again (see Files.empty): read it at once, do not keep it.
        """

    @abstractmethod
    def working_bytes(self, rows: int) -> int:
        """The most bytes that are held at once while `rows` rows are produced, the result included."""

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        """Columns [first, last) of a matrix, all rows. By default this reads all rows, in bands."""
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
        """The expressions that this one is made from: by default those among its fields."""
        return tuple(expressions_in(self))

    @property
    def access(self) -> Access:
        """How the tensor can be produced; by default like its inputs."""
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
        """Bytes of the tensor in a file."""
        return -(-self.size * self.dtype.bitwidth // 8)

    def held_bytes(self, rows: int) -> int:
        """Bytes of `rows` rows in memory."""
        return rows * self.row_size * self.dtype.numpy().itemsize

    def value(self, files: Files) -> NDArray[Any]:
        """The whole tensor, in its own shape."""
        return self.rows(0, self.row_count, files).reshape(self.shape)


def expressions_in(holder: Record) -> Iterator[Expression]:
    """The expressions among the fields of a record, also inside tuples."""
    for name in holder.__struct_fields__:
        found = getattr(holder, name)
        if isinstance(found, Expression):
            yield found
        elif isinstance(found, tuple):
            yield from (each for each in found if isinstance(each, Expression))
