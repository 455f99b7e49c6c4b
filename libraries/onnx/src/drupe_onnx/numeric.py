"""Array operations that may process every byte of a model: checks for NaN and Inf, casts, transposes, bit packing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe_onnx import ir
from drupe_onnx.files import Files

_BLOCK = 256 << 10  # bytes that are checked at once: half of a small L2 cache
_TILE = 128  # edge of the squares that are transposed: 1.9 GB/s of float32, against 0.4 for the whole matrix at once

# The bits of +Inf. Read as integers, all larger values are NaN; with the sign bit set, the same holds unsigned.
_INFINITY: dict[ir.DataType, tuple[type[np.signedinteger[Any]], type[np.unsignedinteger[Any]], int]] = {
    ir.DataType.FLOAT16: (np.int16, np.uint16, 0x7C00),
    ir.DataType.BFLOAT16: (np.int16, np.uint16, 0x7F80),
    ir.DataType.FLOAT: (np.int32, np.uint32, 0x7F800000),
    ir.DataType.DOUBLE: (np.int64, np.uint64, 0x7FF0000000000000),
}


def all_finite(values: NDArray[Any]) -> bool:
    """Whether no element is NaN or Inf; 12 GB/s for types of 16 bits and more: two maxima over the bits, no copy."""
    dtype = ir.DataType.from_numpy(values.dtype)
    if dtype in _INFINITY:
        return _all_below_infinity(values, *_INFINITY[dtype])
    if dtype.is_floating_point():  # types of 8 bits and fewer: each has its own codes for NaN and Inf
        return bool(np.isfinite(values.astype(np.float32)).all())
    return values.dtype.kind != "c" or bool(np.isfinite(values).all())


def _all_below_infinity(
    values: NDArray[Any], signed: type[np.signedinteger[Any]], unsigned: type[np.unsignedinteger[Any]], infinity: int
) -> bool:
    flat = np.ascontiguousarray(values).reshape(-1)
    step = _BLOCK // flat.itemsize
    sign = 1 << (8 * flat.itemsize - 1)
    for start in range(0, flat.size, step):
        block = flat[start : start + step]
        if int(block.view(signed).max()) >= infinity or int(block.view(unsigned).max()) >= infinity | sign:
            return False
    return True


def first_not_finite(values: NDArray[Any]) -> tuple[int, ...]:
    """The position of the first NaN or Inf. There must be one."""
    wrong = ~np.isfinite(values.astype(np.float64, copy=False))
    return tuple(int(index) for index in np.unravel_index(int(wrong.argmax()), values.shape))


def cast(values: NDArray[Any], dtype: ir.DataType, files: Files) -> NDArray[Any]:
    """`values` as `dtype`, rounded to the nearest, ties to even; values that are too large become Inf."""
    wanted = dtype.numpy()
    if values.dtype == wanted:
        return values
    if dtype == ir.DataType.FLOAT and ir.DataType.from_numpy(values.dtype) == ir.DataType.BFLOAT16:
        out = files.empty(values.shape, np.uint32)  # bfloat16 is the upper half of a float32
        np.left_shift(values.view(np.uint16), 16, out=out, dtype=np.uint32)
        return out.view(np.float32)
    out = files.empty(values.shape, wanted)
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(out, values, casting="unsafe")
    return out


def transposed(values: NDArray[Any], files: Files) -> NDArray[Any]:
    """A contiguous transpose of a matrix, made in squares that fit in the cache."""
    rows, columns = values.shape
    out = files.empty((columns, rows), values.dtype)
    source, result = _bits(values), _bits(out)
    for row in range(0, rows, _TILE):
        for column in range(0, columns, _TILE):
            tile = source[row : row + _TILE, column : column + _TILE]
            result[column : column + _TILE, row : row + _TILE] = tile.T
    return out


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    """The same memory as plain integers, which numpy copies faster than types of ml_dtypes."""
    return values.view(f"u{values.itemsize}") if values.itemsize in (1, 2, 4, 8) else values


def packed(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Elements of 4- and 2-bit types packed into bytes, low bits first, as ONNX stores them; flat."""
    per_byte = 8 // bits
    raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8) & np.uint8((1 << bits) - 1)
    raw = np.concatenate([raw, np.zeros(-raw.size % per_byte, np.uint8)]).reshape(-1, per_byte)
    out: NDArray[np.uint8] = raw[:, 0].copy()
    for place in range(1, per_byte):
        out |= raw[:, place] << (bits * place)
    return out


def unpacked(raw: NDArray[np.uint8], dtype: ir.DataType, count: int, skip: int = 0) -> NDArray[Any]:
    """`count` elements of a 4- or 2-bit type, after the first `skip`; flat, one byte for each element."""
    bits = dtype.bitwidth
    per_byte = 8 // bits
    out = np.empty((raw.size, per_byte), np.uint8)
    for place in range(per_byte):
        out[:, place] = (raw >> (bits * place)) & ((1 << bits) - 1)
    flat = out.reshape(-1)[skip : skip + count]
    if dtype in (ir.DataType.INT4, ir.DataType.INT2):
        flat = ((flat ^ (1 << (bits - 1))).view(np.int8) - (1 << (bits - 1))).view(np.uint8)
    return flat.view(dtype.numpy())
