"""The layouts of GPTQ, AWQ, compressed-tensors and MLX, as packed matrices.

GPTQ: https://github.com/ModelCloud/GPTQModel (nn_modules/qlinear). AWQ: https://github.com/casper-hansen/AutoAWQ
(modules/linear/gemm.py). compressed-tensors: https://github.com/vllm-project/compressed-tensors (pack_quantized).
MLX: https://github.com/ml-explore/mlx (affine quantization).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe_blockquant.layout import pack_levels
from drupe_onnx import Array, Expression, Files, Transpose, ir
from drupe_onnx.numeric import transposed
from drupe_packed.int32_words import across_bytes, across_planes, awq_pairs, awq_unpacked, unpacked
from drupe_packed.packed_matrix import PackedMatrix, UInt8
from drupe_packed.packing import BITS, WORD


class GptqMatrix(PackedMatrix):
    """GPTQ: `qweight` int32 [K * bits / 32, N] with levels along K, `qzeros` int32 [groups, N * bits / 32] along N.

    group_scales [groups, N]. less_one: zero points are stored minus one (the format "gptq"; "gptq_v2" stores them
    unchanged). GPTQ subtracts the one from whole words, so a zero point of 0 borrows from its neighbour; adding it to
    whole words undoes that. stored_bits: of a level in the words, also 3, 5, 6 and 7: a level may lie in two words
    then, the one is subtracted from each zero point, and levels are given as the middle ones of 4 or 8 bits, as those
    of MlxMatrix are. planar: such levels lie in planes (the format "gptq_p"), and none lies in two words.
    """

    qweight: Expression
    qzeros: Expression
    group_scales: Expression
    stored_bits: int
    group_size: int
    symmetric: bool
    less_one: bool
    order: Array | None = None
    planar: bool = False

    @property
    def bits(self) -> int:
        return given_bits(self.stored_bits)

    @property
    def shape(self) -> tuple[int, ...]:
        words, n = self.qweight.shape
        return (n, words * WORD // self.stored_bits)

    @property
    def scale_dtype(self) -> ir.DataType:
        return self.group_scales.dtype

    def packed(self, start: int, stop: int, files: Files) -> UInt8:
        words = transposed(self.qweight.columns(start, stop, files), files)
        if self.order is None and self.bits == self.stored_bits:
            return words.view(np.uint8)
        levels = self._levels(words)
        return pack_levels(levels if self.order is None else levels[:, self.order.values], self.bits)

    def scales(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return Transpose(self.group_scales).rows(start, stop, files)

    def stored_zero_points(self, start: int, stop: int, files: Files) -> UInt8:
        first, last = start // WORD * self.stored_bits, -(-stop // WORD) * self.stored_bits
        last = min(last, self.qzeros.shape[1])  # so many words hold 32 levels
        held = self.qzeros.columns(first, last, files).view(np.uint32)
        if self.less_one and self.bits == self.stored_bits:
            held = held + np.uint32(sum(1 << place for place in range(0, WORD, self.bits)))
        zeros = self._levels(held)
        if self.less_one and self.bits != self.stored_bits:
            one, lowest, highest = np.uint8(1), middle_level(self.stored_bits), np.uint8((1 << self.stored_bits) - 1)
            zeros = ((zeros - lowest + one) & highest) + lowest
        skipped = start % WORD
        return np.ascontiguousarray(zeros[:, skipped : skipped + stop - start].T)

    def _levels(self, words: NDArray[Any]) -> UInt8:
        """The levels of rows of words, in `bits`."""
        if self.bits == self.stored_bits:
            return unpacked(words, self.bits)
        if self.planar:
            return across_planes(words, self.stored_bits) + middle_level(self.stored_bits)
        found = across_bytes(np.ascontiguousarray(words).view(np.uint8), self.stored_bits)
        return found + middle_level(self.stored_bits)

    def packed_bytes(self, rows: int) -> int:
        return super().packed_bytes(rows) + (rows * self.shape[1] * 3 if self.bits != self.stored_bits else 0)


def given_bits(stored: int) -> int:
    """The bits in which levels are given that are stored in `stored` bits."""
    return next(bits for bits in BITS if bits >= stored)


def middle_level(stored: int) -> np.uint8:
    """What is added to a level of `stored` bits, so that it is one of the middle ones of the bits it is given in."""
    return np.uint8((1 << (given_bits(stored) - 1)) - (1 << (stored - 1)))


class AwqMatrix(PackedMatrix):
    """AWQ's "gemm": `qweight` int32 [K, N * bits / 32] and `qzeros` [groups, N * bits / 32], both along N.

    group_scales [groups, N]. stored_bits: of a level in the words. Four bits put eight outputs into a word. AutoRound
    also writes 5, 6 and 7: a level may lie in two words then, and is given as one of the middle ones of 8 bits.
    """

    qweight: Expression
    qzeros: Expression
    group_scales: Expression
    stored_bits: int
    group_size: int

    symmetric = False
    order = None

    @property
    def bits(self) -> int:
        return given_bits(self.stored_bits)

    @property
    def shape(self) -> tuple[int, ...]:
        k, words = self.qweight.shape
        return (words * WORD // self.stored_bits, k)

    @property
    def scale_dtype(self) -> ir.DataType:
        return self.group_scales.dtype

    def packed(self, start: int, stop: int, files: Files) -> UInt8:
        words, skipped = self._words(self.qweight, start, stop, files)
        if self.stored_bits == self.bits:
            return awq_pairs(words)[skipped : skipped + stop - start]
        return pack_levels(self._levels(words)[skipped : skipped + stop - start], self.bits)

    def scales(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return Transpose(self.group_scales).rows(start, stop, files)

    def stored_zero_points(self, start: int, stop: int, files: Files) -> UInt8:
        words, skipped = self._words(self.qzeros, start, stop, files)
        return self._levels(words)[skipped : skipped + stop - start]

    def _words(self, packed: Expression, start: int, stop: int, files: Files) -> tuple[NDArray[Any], int]:
        """The words with the levels of outputs [start, stop), and how many outputs come before these."""
        words, outputs = (1, WORD // self.bits) if self.stored_bits == self.bits else (self.stored_bits, WORD)
        first = start // outputs
        return packed.columns(first * words, -(-stop // outputs) * words, files), start - first * outputs

    def _levels(self, words: NDArray[Any]) -> UInt8:
        """The levels of words [rows, w], in `bits`: [w * 32 / stored_bits, rows]."""
        return np.ascontiguousarray(awq_unpacked(words, self.stored_bits).T) + middle_level(self.stored_bits)

    def packed_bytes(self, rows: int) -> int:
        return super().packed_bytes(rows) + (rows * self.shape[1] * 3 if self.bits != self.stored_bits else 0)


class PackQuantizedMatrix(PackedMatrix):
    """compressed-tensors' "pack-quantized": `words` int32 [N, ceil(K * bits / 32)], levels along K.

    row_scales [N, groups]. zeros: int32 [ceil(N * bits / 32), groups], along N; None where the weights are symmetric.
    Levels and zero points are signed and stored with 2^(bits - 1) added, which cancels out.
    """

    words: Expression
    row_scales: Expression
    zeros: Expression | None
    shape: tuple[int, ...]
    bits: int
    group_size: int
    order: Array | None = None

    @property
    def symmetric(self) -> bool:
        return self.zeros is None

    @property
    def scale_dtype(self) -> ir.DataType:
        return self.row_scales.dtype

    def packed(self, start: int, stop: int, files: Files) -> UInt8:
        words = self.words.rows(start, stop, files)
        if self.order is None:
            return np.ascontiguousarray(words.view(np.uint8)[:, : -(-self.shape[1] * self.bits // 8)])
        return pack_levels(unpacked(words, self.bits)[:, self.order.values], self.bits)

    def scales(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return self.row_scales.rows(start, stop, files)

    def stored_zero_points(self, start: int, stop: int, files: Files) -> UInt8 | None:
        if self.zeros is None:
            return None
        per_word = WORD // self.bits
        first = start // per_word
        words = self.zeros.rows(first, -(-stop // per_word), files)
        levels = unpacked(np.ascontiguousarray(words.T), self.bits)
        skipped = first * per_word
        return np.ascontiguousarray(levels[:, start - skipped : stop - skipped].T)


class MlxMatrix(PackedMatrix):
    """MLX: `words` uint32 [N, K * bits / 32], levels along K; level * scale + bias, with both [N, groups].

    The biases are multiples of the scales only by chance, so they are minimums rather than zero points. stored_bits: of
    a level in the words, also 3, 5 or 6: a level may lie in two words then, and is given in 4 or 8 bits.

    Levels of 3, 5 and 6 bits are given as the middle ones of 4 or 8 bits. MatMulNBits multiplies activations with a
    level's distance from the middle, and their rounding errors grow with that.
    """

    words: Expression
    row_scales: Expression
    biases: Expression
    stored_bits: int
    group_size: int

    symmetric = True
    order = None

    @property
    def bits(self) -> int:
        return given_bits(self.stored_bits)

    @property
    def shape(self) -> tuple[int, ...]:
        n, width = self.words.shape
        return (n, width * WORD // self.stored_bits)

    @property
    def scale_dtype(self) -> ir.DataType:
        return self.row_scales.dtype

    @property
    def minimums(self) -> Expression:
        return self.biases

    @property
    def lowest(self) -> int:
        return int(middle_level(self.stored_bits))

    def packed(self, start: int, stop: int, files: Files) -> UInt8:
        words = np.ascontiguousarray(self.words.rows(start, stop, files)).view(np.uint8)
        if self.bits == self.stored_bits:
            return words
        return pack_levels(across_bytes(words, self.stored_bits) + middle_level(self.stored_bits), self.bits)

    def scales(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return self.row_scales.rows(start, stop, files)

    def stored_zero_points(self, start: int, stop: int, files: Files) -> UInt8 | None:
        return None

    def packed_bytes(self, rows: int) -> int:
        return super().packed_bytes(rows) + (rows * self.shape[1] * 3 if self.bits != self.stored_bits else 0)
