"""PackedMatrix: a matrix of floats that is stored as levels, scales and zero points."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError
from drupe_blockquant.layout import unpack_levels
from drupe_onnx import Array, Expression, Files, ir, name_of

UInt8 = NDArray[np.uint8]


class PackedMatrix(Expression):
    """A matrix [N, K] of float32 values, (level - zero point) * scale, that also gives levels, scales and zero points.

    A layout is a frozen dataclass that says where they are stored. In each row, groups of `group_size` values share a
    scale and a zero point; the last group may be shorter.

    bits: of a level, 2, 4 or 8. symmetric: all zero points are 2^(bits - 1); reading another zero point is an error.
    order: [K], the matrix's column of each packed column; None where they are in the matrix's own order.
    """

    if TYPE_CHECKING:

        @property
        def bits(self) -> int: ...

        @property
        def group_size(self) -> int: ...

        @property
        def symmetric(self) -> bool: ...

        @property
        def order(self) -> Array | None: ...

        @property
        def scale_dtype(self) -> ir.DataType: ...

    @abstractmethod
    def packed(self, start: int, stop: int, files: Files) -> UInt8:
        """The levels of rows [start, stop), in the order of packing, low bits first: [rows, ceil(K * bits / 8)]."""

    @abstractmethod
    def scales(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        """The scales of rows [start, stop): [rows, groups], in `scale_dtype`."""

    @abstractmethod
    def stored_zero_points(self, start: int, stop: int, files: Files) -> UInt8 | None:
        """The zero points of rows [start, stop), [rows, groups]; None where the layout stores none."""

    @property
    def dtype(self) -> ir.DataType:
        return ir.DataType.FLOAT

    @property
    def minimums(self) -> Expression | None:
        """[N, groups], where values are (level - lowest) * scale + minimum; the matrix is symmetric then. Else None."""
        return None

    @property
    def lowest(self) -> int:
        """The level that stands for the minimum."""
        return 0

    @property
    def groups(self) -> int:
        return -(-self.shape[1] // self.group_size)

    def zero_points(self, start: int, stop: int, files: Files) -> UInt8:
        """The zero points of rows [start, stop): [rows, groups]. Raises ModelError where they are not symmetric."""
        middle = 1 << (self.bits - 1)
        stored = self.stored_zero_points(start, stop, files)
        if stored is None:
            return np.full((stop - start, self.groups), middle, np.uint8)
        if self.symmetric and (stored != middle).any():
            row, group = (int(index[0]) for index in np.nonzero(stored != middle))
            raise ModelError(
                f"'{name_of(self)}' has a zero point of {stored[row, group]} for output {start + row}, group {group}, "
                f"but config.json says that the weights are symmetric: all zero points would be {middle}",
                cure='if the zero points are right, set "sym": false in quantization_config',
            )
        return stored

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        n, k, width = stop - start, self.shape[1], self.groups * self.group_size
        levels = unpack_levels(self.packed(start, stop, files), self.bits)[:, :k]
        grouped = files.empty((n, width), np.float32)
        grouped[:, k:] = 0
        grouped[:, :k] = levels
        grouped = grouped.reshape(n, self.groups, self.group_size)
        grouped -= self.lowest if self.minimums is not None else self.zero_points(start, stop, files)[:, :, None]
        grouped *= self.scales(start, stop, files).astype(np.float32)[:, :, None]
        if self.minimums is not None:
            grouped += self.minimums.rows(start, stop, files).astype(np.float32)[:, :, None]
        values = grouped.reshape(n, width)[:, :k]
        if self.order is None:
            return np.ascontiguousarray(values)
        out = files.empty((n, k), np.float32)
        out[:, self.order.values] = values
        return out

    def working_bytes(self, rows: int) -> int:
        return self.packed_bytes(rows) + 2 * self.held_bytes(rows)

    def packed_bytes(self, rows: int) -> int:
        """The most bytes that are held at once while levels, scales and zero points of `rows` rows are made."""
        k = self.shape[1]
        return rows * (2 * k + 4 * k * self.bits // 8 + 16 * self.groups)
