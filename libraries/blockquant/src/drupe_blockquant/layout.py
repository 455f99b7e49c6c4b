"""Packing, unpacking and dequantization in the layout of MatMulNBits, in numpy.

Levels are uint8, one for each weight. A packed byte holds 8/bits levels, the first in its lowest bits. Zero points are
packed along a row in the same way. Unused places of the last byte hold the middle level, 2^(bits-1).
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from drupe_blockquant.scheme import BITS, Scheme

Array = npt.NDArray[Any]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

_ROWS_AT_ONCE_BYTES = 8 << 20


class Quantized(NamedTuple):
    """Rows in the layout of MatMulNBits: W = (level - zero point) * scale.

    `packed` uint8 [n, blocks, block_size * bits / 8], `scales` [n, blocks] in the dtype that was asked for,
    `zero_points` uint8 [n, ceil(blocks * bits / 8)] or None when symmetric. Where the scheme has two levels, `scales`
    are uint8 multiples of `units` bfloat16 [n, 1], which is None otherwise. bfloat16 may come as its bits in uint16.
    """

    packed: UInt8
    scales: Array
    zero_points: UInt8 | None
    units: Array | None = None

    @property
    def float_scales(self) -> Float32:
        """The scales [n, blocks] that the levels are multiplied with."""
        scales = as_float32(self.scales)
        return scales if self.units is None else scales * as_float32(self.units)


def pack_levels(levels: UInt8, bits: int) -> UInt8:
    """Pack levels along the last axis, whose length must be a multiple of 8 / bits."""
    per_byte = _per_byte(bits)
    if levels.shape[-1] % per_byte:
        raise ValueError(f"{levels.shape[-1]} levels of {bits} bits do not fill whole bytes")
    if per_byte == 1:
        return np.ascontiguousarray(levels)
    grouped = levels.reshape(*levels.shape[:-1], -1, per_byte)
    packed = grouped[..., 0].copy()
    for place in range(1, per_byte):
        packed |= grouped[..., place] << (place * bits)
    return packed


def unpack_levels(packed: UInt8, bits: int) -> UInt8:
    """The inverse of `pack_levels`: the last axis becomes 8 / bits times as long."""
    per_byte = _per_byte(bits)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    levels = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return levels.reshape(*packed.shape[:-1], packed.shape[-1] * per_byte)


def pack_zero_points(zeros: UInt8, bits: int) -> UInt8:
    """Pack zero points [n, blocks] to [n, ceil(blocks * bits / 8)]."""
    n, blocks = zeros.shape
    per_byte = _per_byte(bits)
    padded = np.full((n, -(-blocks // per_byte) * per_byte), 1 << (bits - 1), np.uint8)
    padded[:, :blocks] = zeros
    return pack_levels(padded, bits)


def unpack_zero_points(packed: UInt8, bits: int, blocks: int) -> UInt8:
    """The inverse of `pack_zero_points`."""
    return unpack_levels(packed, bits)[:, :blocks]


def dequantize_rows(found: Quantized, scheme: Scheme, k: int) -> Float32:
    """Float32 values [n, k] of rows quantized by `scheme`: (level - zero point) * scale.

    `packed` may have any shape that holds n rows of `scheme.packed_width(k)` bytes. The rows are dequantized in slices,
    so only the result takes much memory.
    """
    blocks, scales, zero_points = scheme.blocks(k), found.float_scales, found.zero_points
    n = scales.shape[0]
    packed = found.packed.reshape(n, blocks, -1)
    result = np.empty((n, k), np.float32)
    at_once = max(1, _ROWS_AT_ONCE_BYTES // (4 * blocks * scheme.block_size))
    for start in range(0, n, at_once):
        rows = slice(start, start + at_once)
        values = unpack_levels(packed[rows], scheme.bits).astype(np.float32)
        if zero_points is None:
            values -= np.float32(1 << (scheme.bits - 1))
        else:
            values -= unpack_zero_points(zero_points[rows], scheme.bits, blocks)[..., None].astype(np.float32)
        values *= scales[rows][..., None]
        result[rows] = values.reshape(len(values), -1)[:, :k]
    return result


def as_float32(values: npt.NDArray[Any]) -> Float32:
    """Float32 of float32, float16 or bfloat16 values; uint16 means bit patterns of bfloat16."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32)


def _per_byte(bits: int) -> int:
    if bits not in BITS:
        raise ValueError(f"bits must be one of {BITS}, not {bits!r}")
    return 8 // bits
