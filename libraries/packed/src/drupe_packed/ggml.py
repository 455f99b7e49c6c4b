"""The block formats of GGUF files: Q4_0, Q4_1 and Q8_0 as packed matrices, Q6_K as dequantized values.

The formats: https://github.com/ggml-org/llama.cpp (ggml-common.h, gguf-py/gguf/quants.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError
from drupe_onnx import Array, Expression, Files, SafetensorsTensor, Take, ir, name_of, numeric
from drupe_packed.ggml_types import GgmlType
from drupe_packed.packed_matrix import PackedMatrix, UInt8

_PLAIN = {"F32": ir.DataType.FLOAT, "F16": ir.DataType.FLOAT16, "BF16": ir.DataType.BFLOAT16}


def tensor(path: Path, name: str, kind: GgmlType, shape: tuple[int, ...], offset: int) -> Expression:
    """A tensor of a GGUF file. `kind` is a supported type, and the last axis of `shape` is a multiple of its block."""
    if kind.name in _PLAIN:
        return SafetensorsTensor(path, name, _PLAIN[kind.name], shape, offset)
    n, k = shape
    raw = SafetensorsTensor(path, name, ir.DataType.UINT8, (n, k // kind.values * kind.nbytes), offset)
    return _QUANTIZED[kind.name](raw)


def unpermuted(tensor: Expression, heads: int) -> Expression:
    """The rows of queries or keys in transformers' order.

    transformers rotates rows of a head's first half with rows of its second half; llama.cpp rotates neighbouring rows.
    `tensor` has an even number of rows for each head.
    """
    indices = Array(np.arange(tensor.shape[0]).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1))
    return PickedRows(tensor, indices) if isinstance(tensor, PackedMatrix) else Take(tensor, indices)


class _Blocks(PackedMatrix):
    """Rows of blocks, each a float16 scale followed by 32 levels: `raw` uint8 [N, blocks * bytes of a block].

    head_bytes: how many bytes come before the levels.
    """

    raw: Expression
    values = group_size = 32
    head_bytes = 2
    symmetric = True
    order = None
    scale_dtype = ir.DataType.FLOAT16

    @property
    def block_bytes(self) -> int:
        return self.head_bytes + self.values * self.bits // 8

    @property
    def shape(self) -> tuple[int, ...]:
        n, width = self.raw.shape
        return (n, width // self.block_bytes * self.values)

    def scales(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return np.ascontiguousarray(self._blocks(start, stop, files)[:, :, :2]).view(np.float16)[:, :, 0]

    def stored_zero_points(self, start: int, stop: int, files: Files) -> UInt8 | None:
        return None

    def _blocks(self, start: int, stop: int, files: Files) -> UInt8:
        return self.raw.rows(start, stop, files).reshape(stop - start, -1, self.block_bytes)

    def _levels(self, start: int, stop: int, files: Files) -> UInt8:
        """The bytes after the head of each block."""
        return self._blocks(start, stop, files)[:, :, self.head_bytes :]


class _FourBits(_Blocks):
    """16 bytes: the first 16 levels are in their low halves, the other 16 in their high halves."""

    bits = 4

    def packed(self, start: int, stop: int, files: Files) -> UInt8:
        halves = self._levels(start, stop, files)
        out = np.empty(halves.shape, np.uint8)
        out[:, :, :8] = (halves[:, :, 0::2] & 0x0F) | (halves[:, :, 1::2] << 4)
        out[:, :, 8:] = (halves[:, :, 0::2] >> 4) | (halves[:, :, 1::2] & 0xF0)
        return out.reshape(stop - start, -1)


class Q40Matrix(_FourBits):
    """Q4_0: the zero point is 8."""

    raw: Expression


class Q41Matrix(_FourBits):
    """Q4_1: level * scale + minimum. The minimum is not a multiple of the scale, so no zero point is an integer."""

    raw: Expression
    head_bytes = 4

    @property
    def minimums(self) -> Expression:
        """float16 [N, blocks]."""
        return BlockMinimums(self.raw, self.block_bytes)


class BlockMinimums(Expression):
    """The minimums of blocks, float16 [N, blocks], which follow the scales; see Q41Matrix."""

    raw: Expression
    block_bytes: int

    @property
    def dtype(self) -> ir.DataType:
        return ir.DataType.FLOAT16

    @property
    def shape(self) -> tuple[int, ...]:
        n, width = self.raw.shape
        return (n, width // self.block_bytes)

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        blocks = self.raw.rows(start, stop, files).reshape(stop - start, -1, self.block_bytes)
        found: NDArray[np.float16] = np.ascontiguousarray(blocks[:, :, 2:4]).view(np.float16)[:, :, 0]
        if not numeric.all_finite(found):
            raise ModelError(
                f"the minimums of '{name_of(self)}' hold NaN or Inf",
                cure="download the checkpoint again: a model whose weights are NaN or Inf does not work",
            )
        return found

    def working_bytes(self, rows: int) -> int:
        return self.raw.working_bytes(rows) + 3 * self.held_bytes(rows)


class Q80Matrix(_Blocks):
    """Q8_0: 32 signed bytes. With 128 added they are levels whose zero point is 128."""

    raw: Expression
    bits = 8

    def packed(self, start: int, stop: int, files: Files) -> UInt8:
        return (self._levels(start, stop, files) ^ np.uint8(0x80)).reshape(stop - start, -1)


class PickedRows(PackedMatrix):
    """Rows of a packed matrix by number. Neighbouring rows of the result should be close together in the source."""

    source: PackedMatrix
    indices: Array

    def __post_init__(self) -> None:
        if sorted(self.indices.values) != list(range(self.source.shape[0])):
            raise ValueError(f"indices of shape {self.indices.shape} do not reorder the rows of {self.source.shape}")

    shape = property(lambda self: self.source.shape)
    bits = property(lambda self: self.source.bits)
    group_size = property(lambda self: self.source.group_size)
    symmetric = property(lambda self: self.source.symmetric)
    order = property(lambda self: self.source.order)
    scale_dtype = property(lambda self: self.source.scale_dtype)

    @property
    def minimums(self) -> Expression | None:
        """The minimums of the source, reordered."""
        held = self.source.minimums
        return None if held is None else Take(held, self.indices)

    @property
    def lowest(self) -> int:
        return self.source.lowest

    def packed(self, start: int, stop: int, files: Files) -> UInt8:
        low, high, wanted = self._range(start, stop)
        return self.source.packed(low, high, files)[wanted]

    def scales(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        low, high, wanted = self._range(start, stop)
        found: NDArray[Any] = self.source.scales(low, high, files)[wanted]
        return found

    def stored_zero_points(self, start: int, stop: int, files: Files) -> UInt8 | None:
        low, high, wanted = self._range(start, stop)
        stored = self.source.stored_zero_points(low, high, files)
        return None if stored is None else stored[wanted]

    def _range(self, start: int, stop: int) -> tuple[int, int, NDArray[np.int64]]:
        """The range of the source's rows to read, and the wanted rows within it."""
        wanted = self.indices.values[start:stop]
        low, high = int(wanted.min()), int(wanted.max()) + 1
        return low, high, wanted - low

    def packed_bytes(self, rows: int) -> int:
        return 2 * self.source.packed_bytes(min(self.shape[0], 2 * rows))


class GgmlValues(Expression):
    """A matrix [N, K] of float32 in a block format that MatMulNBits does not support: `raw` uint8 [N, bytes]."""

    raw: Expression
    values: ClassVar[int]
    block_bytes: ClassVar[int]

    @property
    def dtype(self) -> ir.DataType:
        return ir.DataType.FLOAT

    @property
    def shape(self) -> tuple[int, ...]:
        n, width = self.raw.shape
        return (n, width // self.block_bytes * self.values)

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        blocks = self.raw.rows(start, stop, files).reshape(-1, self.block_bytes)
        return self._values(blocks).reshape(stop - start, -1)

    def _values(self, blocks: UInt8) -> NDArray[np.float32]:
        """float32 [blocks, values] of uint8 [blocks, block_bytes]."""
        raise NotImplementedError

    def working_bytes(self, rows: int) -> int:
        return self.raw.working_bytes(rows) + 4 * self.held_bytes(rows)


class Q6KValues(GgmlValues):
    """Q6_K: 256 levels of 6 bits, in groups of 16 with a scale of 8 bits each, and a float16 scale for those."""

    raw: Expression
    values = 256
    block_bytes = 210

    def _values(self, blocks: UInt8) -> NDArray[np.float32]:
        count = len(blocks)
        halves, pairs = blocks[:, :128].reshape(count, 2, 64), blocks[:, 128:192].reshape(count, 2, 32)
        low = np.concatenate([halves & 0x0F, halves >> 4], 2).reshape(count, 2, 4, 32)
        high = np.stack([(pairs >> shift) & 3 for shift in (0, 2, 4, 6)], 2)
        levels = (low | (high << 4)).astype(np.int8) - np.int8(32)
        scales = _float16(blocks, 208) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
        values: NDArray[np.float32] = levels.reshape(count, 16, 16) * scales[:, :, None]
        return values.reshape(count, 256)


def _float16(blocks: UInt8, offset: int) -> NDArray[np.float32]:
    """The float16 that each block has at an offset, as float32 [blocks, 1]."""
    held: NDArray[np.float16] = np.ascontiguousarray(blocks[:, offset : offset + 2]).view(np.float16)
    return held.astype(np.float32)


_QUANTIZED: dict[str, Callable[[Expression], Expression]] = {
    "Q4_0": Q40Matrix,
    "Q4_1": Q41Matrix,
    "Q8_0": Q80Matrix,
    "Q6_K": Q6KValues,
}
