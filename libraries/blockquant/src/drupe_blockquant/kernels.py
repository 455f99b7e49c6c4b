"""Quantizing rows, compiled by numba: start them, search for better scales, round and pack; and the entry points.

An entry point works on a range of rows; callers own the threads. Method, block size, bit width and dtype of scales are
run-time arguments, so a run compiles only one entry point. An entry point is a plain C function over pointers, so its
machine code runs without numba; `machine_code` keeps that code. No module that is used without numba imports this one.

Everything is float32.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc,attr-defined"

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import carray

from drupe_blockquant.kernel_calls import GROUP, LANE_VALUES
from drupe_blockquant.kernels_common import F32, strict
from drupe_blockquant.kernels_rows import (
    TWO_LEVEL,
    block_ranges,
    in_units,
    load_row,
    pack_row,
    pack_zeros,
    quantize_row,
    start_blocks,
)
from drupe_blockquant.kernels_search import interleave, interleave_weights, search_group


class Scratch(NamedTuple):
    """Memory for the rows in work, which `kernel_calls` allocates. Views of the same memory are passed as separate
    arrays, because numba takes seconds to compile a call of `view`."""

    pattern: npt.NDArray[np.int32]  # rows as float32 bit patterns, each padded to whole blocks with zeros
    values: npt.NDArray[np.float32]  # the same memory
    pairs: npt.NDArray[np.uint64]  # the same memory
    low: npt.NDArray[np.int32]
    high: npt.NDArray[np.int32]
    reciprocals: npt.NDArray[np.float32]
    zeros: npt.NDArray[np.float32]
    levels: npt.NDArray[np.uint8]  # one row
    levels_by_two: npt.NDArray[np.uint16]  # the same memory
    levels_by_four: npt.NDArray[np.uint32]  # the same memory


class SearchScratch(NamedTuple):
    """More memory, for the search; the last three are None where columns have no weights."""

    lanes: npt.NDArray[np.float32]
    group: npt.NDArray[np.float32]  # the blocks of a group, interleaved
    group_pairs: npt.NDArray[np.uint64]  # the same memory
    importance_pairs: npt.NDArray[np.uint64] | None  # the columns' weights, repeated for each row in work
    weights: npt.NDArray[np.float32] | None  # the weights of a group, interleaved
    weights_pairs: npt.NDArray[np.uint64] | None  # the same memory


@strict
def _prepare_row(row, rows_kind, k, block_size, symmetric, q_max, scales_kind, scratch, at, scales):
    """Load a row to place `at` of the chunk and start its blocks; False where a value is not finite."""
    blocks = scales.size
    width = blocks * block_size
    bits = scratch.pattern[at * width : (at + 1) * width]
    here = slice(at * blocks, (at + 1) * blocks)
    load_row(row, rows_kind, k, bits)
    block_ranges(bits, block_size, scratch.low, scratch.high)
    reciprocals = scratch.reciprocals[here]
    return start_blocks(
        scratch.low, scratch.high, symmetric, q_max, scales_kind, scales, reciprocals, scratch.zeros[here]
    )


@strict
def _emit_row(scratch, at, bits, block_size, k, symmetric, q_max, packed, zero_points):
    """Quantize and pack the row at place `at` of the chunk."""
    width = scratch.levels.size
    blocks = width // block_size
    here = slice(at * blocks, (at + 1) * blocks)
    values = scratch.values[at * width : (at + 1) * width]
    quantize_row(values, block_size, scratch.reciprocals[here], scratch.zeros[here], q_max, scratch.levels)
    pack_row(scratch.levels, scratch.levels_by_two, scratch.levels_by_four, bits, k, packed)
    if not symmetric:
        pack_zeros(scratch.zeros[here], bits, zero_points)


@strict
def _search_rows(scales, block_size, symmetric, q_max, scales_kind, scratch, search, shrink):
    """Search for better scales and zero points than those of the rows in work."""
    for b in range(0, scales.size, GROUP):
        end = b + GROUP if b + GROUP < scales.size else scales.size
        span = slice(b * block_size // 2, (b + GROUP) * block_size // 2)
        interleave(scratch.pairs[span], block_size, search.group_pairs)
        interleave_weights(search.importance_pairs, span, block_size, search.weights_pairs)
        reciprocals, zeros = scratch.reciprocals[b:end], scratch.zeros[b:end]
        search_group(
            search.group, search.weights, search.lanes, shrink, symmetric, q_max, scales_kind,
            scales[b:end], reciprocals, zeros,
        )  # fmt: skip


@strict
def _quantize(
    rows, rows_kind, k, bits, block_size, symmetric, scales_kind, packed, scales, zero_points, units, scratch, search,
    shrink,
):  # fmt: skip
    """Round to nearest, then search if there are candidates. Returns the first row with NaN or Inf, or -1.

    Rows are taken several at a time, because a row of 7 blocks would leave most of a group's lanes empty.
    """
    q_max = F32((1 << bits) - 1)
    blocks = scratch.low.size
    at_once = scratch.zeros.size // blocks
    for first in range(0, rows.shape[0], at_once):
        count = rows.shape[0] - first
        count = count if count < at_once else at_once
        for r in range(count):
            i = first + r
            here = scales[i * blocks : (i + 1) * blocks]
            if not _prepare_row(rows[i], rows_kind, k, block_size, symmetric, q_max, scales_kind, scratch, r, here):
                return i
        if shrink.size > 0:
            chunk_scales = scales[first * blocks : (first + count) * blocks]
            _search_rows(chunk_scales, block_size, symmetric, q_max, scales_kind, scratch, search, shrink)
        for r in range(count):
            i = first + r
            if scales_kind == TWO_LEVEL:
                reciprocals = scratch.reciprocals[r * blocks : (r + 1) * blocks]
                units[i] = in_units(scales[i * blocks : (i + 1) * blocks], reciprocals)
            _emit_row(scratch, r, bits, block_size, k, symmetric, q_max, packed[i], zero_points[i])
    return -1


# Entry points take addresses of arrays, then sizes. There is one for each type of rows, because arrays are typed.


@strict
def _scratch(pattern, low, high, reciprocals, zeros, levels, rows_at_once, blocks, block_size):
    values = -(-rows_at_once * blocks // GROUP) * GROUP * block_size
    width = blocks * block_size
    return Scratch(
        carray(pattern, (values,), np.int32),
        carray(pattern, (values,), np.float32),
        carray(pattern, (values // 2,), np.uint64),
        carray(low, (blocks,), np.int32),
        carray(high, (blocks,), np.int32),
        carray(reciprocals, (rows_at_once * blocks,), np.float32),
        carray(zeros, (rows_at_once * blocks,), np.float32),
        carray(levels, (width,), np.uint8),
        carray(levels, (width // 2,), np.uint16),
        carray(levels, (width // 4,), np.uint32),
    )


def _plain(row_type: Any) -> Callable[..., int]:
    def quantize_plain(
        rows, packed, scales, zero_points, units, pattern, low, high, reciprocals, zeros, levels, lanes, group, shrink,
        n, rows_kind, k, bits, block_size, blocks, symmetric, scales_kind, packed_width, zeros_width, rows_at_once,
        candidates,
    ):  # fmt: skip
        scratch = _scratch(pattern, low, high, reciprocals, zeros, levels, rows_at_once, blocks, block_size)
        search = SearchScratch(
            carray(lanes, (LANE_VALUES,), np.float32),
            carray(group, (GROUP * block_size,), np.float32),
            carray(group, (GROUP * block_size // 2,), np.uint64),
            None,
            None,
            None,
        )
        return _quantize(
            carray(rows, (n, k), row_type), rows_kind, k, bits, block_size, symmetric != 0, scales_kind,
            carray(packed, (n, packed_width), np.uint8), carray(scales, (n * blocks,), np.float32),
            carray(zero_points, (n, zeros_width), np.uint8), carray(units, (n,), np.float32), scratch, search,
            carray(shrink, (candidates,), np.float32),
        )  # fmt: skip

    return quantize_plain


def _weighted(row_type: Any) -> Callable[..., int]:
    def quantize_weighted(
        rows, packed, scales, zero_points, units, pattern, low, high, reciprocals, zeros, levels, lanes, group, shrink,
        importance, weights,
        n, rows_kind, k, bits, block_size, blocks, symmetric, scales_kind, packed_width, zeros_width, rows_at_once,
        candidates,
    ):  # fmt: skip
        scratch = _scratch(pattern, low, high, reciprocals, zeros, levels, rows_at_once, blocks, block_size)
        search = SearchScratch(
            carray(lanes, (LANE_VALUES,), np.float32),
            carray(group, (GROUP * block_size,), np.float32),
            carray(group, (GROUP * block_size // 2,), np.uint64),
            carray(importance, (scratch.pairs.size,), np.uint64),
            carray(weights, (GROUP * block_size,), np.float32),
            carray(weights, (GROUP * block_size // 2,), np.uint64),
        )
        return _quantize(
            carray(rows, (n, k), row_type), rows_kind, k, bits, block_size, symmetric != 0, scales_kind,
            carray(packed, (n, packed_width), np.uint8), carray(scales, (n * blocks,), np.float32),
            carray(zero_points, (n, zeros_width), np.uint8), carray(units, (n,), np.float32), scratch, search,
            carray(shrink, (candidates,), np.float32),
        )  # fmt: skip

    return quantize_weighted


ENTRY_POINTS: dict[str, Callable[..., int]] = {
    "quantize_16": _plain(np.uint16),
    "quantize_32": _plain(np.uint32),
    "quantize_weighted_16": _weighted(np.uint16),
    "quantize_weighted_32": _weighted(np.uint32),
}
