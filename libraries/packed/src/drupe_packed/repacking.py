"""Repacked: packed matrices in the layout of MatMulNBits, levels, scales and zero points unchanged."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError
from drupe_blockquant import Scheme
from drupe_blockquant.layout import pack_zero_points
from drupe_blockquant.scheme import BLOCK_SIZES
from drupe_onnx import Concat, Expression, Files, OutputSpec, Producer, ir, name_of, numeric
from drupe_onnx.expressions.arranged import pieces_of
from drupe_packed.packed_matrix import PackedMatrix


def parts_of(rows: Expression) -> tuple[PackedMatrix, ...]:
    """The packed matrices that `rows` consists of, one after another; empty where it is made in another way.

    All have the same number of bits and the same order of columns, and all or none have minimums, at the same level, so
    they fit into one matrix.
    """
    parts = rows.parts if isinstance(rows, Concat) else (rows,)
    packed = tuple(part for part in parts if isinstance(part, PackedMatrix))
    kinds = {(part.bits, part.order, part.minimums is None, part.lowest) for part in packed}
    return packed if len(packed) == len(parts) and len(kinds) == 1 else ()


def minimums_of(parts: Sequence[PackedMatrix]) -> Expression | None:
    """The minimums [N, groups] of all rows of the parts; None where they have none."""
    minimums = [part.minimums for part in parts if part.minimums is not None]
    return (Concat(tuple(minimums)) if len(minimums) > 1 else minimums[0]) if minimums else None


def schemes_of(parts: Sequence[PackedMatrix]) -> list[Scheme]:
    """The schemes that represent the parts exactly, the largest blocks first.

    A group may become several blocks with equal scales; where the group is a whole row, its last block may be padded. A
    group with a minimum is always one block.
    """
    symmetric = all(part.symmetric for part in parts)
    return [
        Scheme(parts[0].bits, size, symmetric)
        for size in reversed(BLOCK_SIZES)
        if all(_fits(part, size) for part in parts)
    ]


def _fits(part: PackedMatrix, size: int) -> bool:
    """Whether blocks of this size represent a part exactly."""
    if part.minimums is not None:
        return size == part.group_size
    return part.group_size % size == 0 or (part.groups == 1 and _little(part, size))


def _little(part: PackedMatrix, size: int) -> bool:
    """Whether padding to blocks of this size adds little to a row."""
    k = part.shape[1]
    return size == min(BLOCK_SIZES) or -(-k // size) * size <= 1.02 * k


class Repacked(Producer, dict=True):
    """Packed matrices, one after another, as one matrix in blocks of MatMulNBits; for outputs see QuantizeBlocks."""

    parts: tuple[PackedMatrix, ...]
    scheme: Scheme
    scale_dtype: ir.DataType

    @property
    def rows(self) -> int:
        return sum(part.shape[0] for part in self.parts)

    @property
    def label(self) -> str:
        return f"repack {name_of(self)}"

    @functools.cached_property
    def outputs(self) -> tuple[OutputSpec, ...]:
        n, k = self.rows, self.parts[0].shape[1]
        blocks = self.scheme.blocks(k)
        found = (
            OutputSpec("weight", (n, blocks, self.scheme.packed_width(k) // blocks), ir.DataType.UINT8),
            OutputSpec("scales", (n, blocks), self.scale_dtype),
        )
        if self.scheme.symmetric:
            return found
        return (*found, OutputSpec("zero_points", (n, self.scheme.zero_point_width(k)), ir.DataType.UINT8))

    def produce(self, start: int, stop: int, files: Files) -> tuple[NDArray[Any], ...]:
        out = [files.empty((stop - start, *spec.shape[1:]), spec.dtype.numpy()) for spec in self.outputs]
        done = 0
        for part, first, last in pieces_of(self.parts, start, stop):
            piece = slice(done, done + last - first)
            with files.passing():
                self._fill([each[piece] for each in out], part, first, last, files)
            done += last - first
        return tuple(out)

    def _fill(self, out: Sequence[NDArray[Any]], part: PackedMatrix, start: int, stop: int, files: Files) -> None:
        weight = out[0].reshape(stop - start, -1)
        packed = part.packed(start, stop, files)
        weight[:, : packed.shape[1]] = packed
        weight[:, packed.shape[1] :] = 0
        out[1][...] = self._by_block(self._cast(part, part.scales(start, stop, files), files), part)
        zero_points = part.zero_points(start, stop, files)  # also where the result stores none: this checks them
        if not self.scheme.symmetric:
            out[2][...] = pack_zero_points(self._by_block(zero_points, part), self.scheme.bits)

    def _by_block(self, of_groups: NDArray[Any], part: PackedMatrix) -> NDArray[Any]:
        """Values for each group, repeated for each block."""
        blocks = self.scheme.blocks(part.shape[1])
        times = blocks if part.groups == 1 else part.group_size // self.scheme.block_size
        return np.repeat(of_groups, times, axis=1)[:, :blocks]

    def _cast(self, part: PackedMatrix, scales: NDArray[Any], files: Files) -> NDArray[Any]:
        if not numeric.all_finite(scales):
            raise ModelError(
                f"the scales of '{name_of(part)}' hold NaN or Inf",
                cure="download or quantize the checkpoint again: a model whose weights are NaN or Inf does not work",
            )
        cast = numeric.cast(scales, self.scale_dtype, files)
        if not numeric.all_finite(cast):
            raise ModelError(
                f"'{name_of(part)}' has a scale of {np.abs(scales).max():.6g}, and the largest float16 is 65504",
                cure="--precision bf16 or fp32",
            )
        return cast

    def working_bytes(self, rows: int) -> int:
        k = self.parts[0].shape[1]
        made = rows * self.scheme.bytes_for(1, k, 4)
        return 3 * made + max(part.packed_bytes(rows) for part in self.parts)
