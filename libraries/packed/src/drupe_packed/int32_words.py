"""Words of 32 bits into which checkpoints pack levels: reading them as bytes, low bits first, and as levels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe_blockquant.layout import unpack_levels
from drupe_packed.packing import WORD

UInt8 = NDArray[np.uint8]

# For each half byte of an AWQ word, the low ones first: which of eight outputs it holds. See AutoAWQ's WQLinear_GEMM.
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
AWQ_OUTPUTS = len(_AWQ_ORDER)


def unpacked(words: NDArray[Any], bits: int) -> UInt8:
    """The levels of words [..., w], first level in the lowest bits: [..., w * 32 / bits]."""
    return unpack_levels(np.ascontiguousarray(words).view(np.uint8), bits)


def across_bytes(packed: UInt8, bits: int) -> UInt8:
    """The levels of bytes [rows, b] where a level may lie in two bytes, first level in the lowest bits: [rows, levels].

    b * 8 must be a multiple of `bits`. Eight levels always fill whole bytes.
    """
    rows, width = packed.shape
    levels = width * 8 // bits
    padded = np.zeros((rows, -(-levels // 8) * bits), np.uint8)
    padded[:, :width] = packed
    grouped = padded.reshape(rows, -1, bits)
    found = np.empty((rows, grouped.shape[1], 8), np.uint8)
    for place in range(8):
        byte, shift = divmod(place * bits, 8)
        level = grouped[:, :, byte] >> shift
        if shift + bits > 8:
            level |= grouped[:, :, byte + 1] << (8 - shift)
        found[:, :, place] = level & ((1 << bits) - 1)
    return found.reshape(rows, -1)[:, :levels]


def across_planes(words: NDArray[Any], bits: int) -> UInt8:
    """The levels of words [rows, w] in planes, 32 levels in `bits` words: [rows, w * 32 / bits].

    The words of the low bits come first, then those of the others: of 7 bits, 4 and 2 and 1. A plane is packed as
    levels of as many bits would be. See GPTQModel's utils/planar_packing.py.
    """
    rows = len(words)
    grouped = np.ascontiguousarray(words).reshape(-1, bits)
    found = np.zeros((len(grouped), WORD), np.uint8)
    done = 0
    for width in (width for width in (4, 2, 1) if bits & width):
        plane = np.ascontiguousarray(grouped[:, done : done + width]).view(np.uint8)
        found |= across_bytes(plane, width) << done
        done += width
    return found.reshape(rows, -1)


def awq_unpacked(words: NDArray[np.int32], bits: int) -> UInt8:
    """The levels of AWQ's words [rows, w]: [rows, w * 32 / bits], in the order of the outputs."""
    packed = np.ascontiguousarray(words).view(np.uint8)
    levels = across_bytes(packed, bits).reshape(len(words), -1, AWQ_OUTPUTS)
    return levels[:, :, np.argsort(_AWQ_ORDER)].reshape(len(words), -1)


def awq_pairs(words: NDArray[np.int32]) -> UInt8:
    """AWQ's words [K, w] as bytes of two neighbouring levels along K, the first one low: [w * 8, K / 2].

    The code takes bytes apart, not words, because smaller elements are faster. Byte b of a word holds the levels of
    the outputs in places 2b and 2b + 1 of the order.
    """
    count, width = words.shape
    raw = np.ascontiguousarray(words).view(np.uint8).reshape(count, width, 4)
    first, second = raw[0::2], raw[1::2]
    out = np.empty((width, AWQ_OUTPUTS, count // 2), np.uint8)
    low = (first & 0x0F) | (second << 4)
    high = (first >> 4) | (second & 0xF0)
    for byte in range(4):
        out[:, _AWQ_ORDER[2 * byte]] = low[:, :, byte].T
        out[:, _AWQ_ORDER[2 * byte + 1]] = high[:, :, byte].T
    return out.reshape(-1, count // 2)
