"""The inner loops, compiled by numba: load a row, find block ranges, start parameters, search, quantize, pack.

An entry point works on a range of rows; callers own the threads. Method, block size, bit width and dtype of scales are
run-time arguments, so a run compiles only one entry point. An entry point is a plain C function over pointers, so its
machine code runs without numba; `machine_code` keeps that code, and no other module imports this one.

Everything is float32. The round-to-nearest path is strict IEEE arithmetic, because its bytes must equal ONNX Runtime's;
the search may contract multiply and add, which neither hides NaN nor breaks rounding by a magic number (reassociation
would).
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc,attr-defined"

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import carray, njit

from drupe_blockquant.kernel_calls import GROUP, LANE_VALUES, LANES

F32 = np.float32
I32 = np.int32
U32 = np.uint32

ZERO = F32(0)
ONE = F32(1)
# The largest float32 below a half: trunc(x + this) is round-half-away-from-zero for every x >= 0, where x + 0.5 is not
# (0.49999997 + 0.5 rounds to 1).
ALMOST_HALF = F32(0.49999997)
# 1.5 * 2^23: adding and subtracting it rounds to the nearest integer, ties to even, for |x| < 2^22.
MAGIC = F32(12582912.0)
SMALLEST_NORMAL = F32(1.17549435e-38)
INFINITY_BITS = I32(0x7F800000)
# A search result must be better than round-to-nearest by this share of the block's energy, so that float32 noise never
# makes a block worse.
MARGIN = F32(1.000001)

# Offsets at which the search keeps its values of each lane. They share one array, because LLVM must see that the parts
# do not overlap: with one array for each part it would not vectorise.
RATE, SHIFT, CROSS, SQUARE, UNIT, BEST_CROSS, BEST_SQUARE, BEST_SHIFT, FIRST_SHIFT, FIRST_GAIN = range(
    0, LANE_VALUES, LANES
)

TWO_LEVEL, BFLOAT16, FLOAT16, FLOAT32 = 3, 2, 1, 0  # codes for dtypes of rows and scales
MOST_UNITS = F32(255)

# numpy's error model: a division by zero raises no exception, so no branch keeps a loop from being vectorised.
# These functions are not called from Python, so the wrappers for such calls, which take long to compile, are left out.
_inner: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_strict = njit(**_inner)
_contracted = njit(fastmath={"contract"}, **_inner)


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


@_strict
def _round_scale(scale, kind):
    """Round a float32 to the dtype in which scales are stored, ties to even; overflow saturates."""
    bits = F32(scale).view(np.uint32)
    magnitude = bits & U32(0x7FFFFFFF)
    sign = bits & U32(0x80000000)
    if kind == BFLOAT16:
        magnitude = (magnitude + U32(0x7FFF) + ((magnitude >> U32(16)) & U32(1))) & U32(0xFFFF0000)
        magnitude = magnitude if magnitude < U32(0x7F7F0000) else U32(0x7F7F0000)
    elif kind == FLOAT16:
        if magnitude < U32(0x38800000):  # below 2^-14, float16 has steps of 2^-24, as float32 has from 0.5 to 1
            step = F32(F32(U32(magnitude).view(np.float32) + F32(0.5)) - F32(0.5))
            magnitude = F32(step).view(np.uint32)
        else:
            magnitude = (magnitude + U32(0xFFF) + ((magnitude >> U32(13)) & U32(1))) & U32(0xFFFFE000)
            magnitude = magnitude if magnitude < U32(0x477FE000) else U32(0x477FE000)
    return U32(sign | magnitude).view(np.float32)


@_strict
def _reciprocal(scale):
    """1 / scale, or 0 where that would be infinite: the block then becomes zeros."""
    return ONE / scale if scale >= SMALLEST_NORMAL or scale <= -SMALLEST_NORMAL else ZERO


@_strict
def _load_row(row, kind, k, bits):
    """Write the float32 bit patterns of a row that holds bfloat16, float16 or float32 patterns."""
    if kind == FLOAT32:
        for j in range(k):
            bits[j] = I32(row[j])
    elif kind == BFLOAT16:
        for j in range(k):
            bits[j] = I32(U32(row[j]) << U32(16))
    else:
        for j in range(k):
            half = U32(row[j])
            magnitude = U32((half & U32(0x7FFF)) << U32(13))
            # Scaling by 2^112 moves the exponent's bias and makes subnormals normal, exactly.
            scaled = F32(U32(magnitude).view(np.float32) * F32(2.0**112)).view(np.uint32)
            special = U32(0x7F800000) if magnitude >= U32(0x0F800000) else U32(0)
            bits[j] = I32(scaled | special | ((half & U32(0x8000)) << U32(16)))


@_strict
def _block_ranges(bits, block_size, low, high):
    """Least and greatest value of each block and of 0, as ordered integers; NaN and infinities end up outermost."""
    for b in range(low.size):
        block = bits[b * block_size : (b + 1) * block_size]
        least = I32(0)
        greatest = I32(0)
        for j in range(block_size):
            value = block[j]
            key = I32(value ^ ((value >> I32(31)) & I32(0x7FFFFFFF)))
            if key < least:
                least = key
            if key > greatest:
                greatest = key
        low[b] = least
        high[b] = greatest


@_strict
def _start(low, high, symmetric, q_max, kind, scales, reciprocals, zeros):
    """Round-to-nearest scales and zero points, as MLAS computes them; False where a value is not finite."""
    finite = True
    middle = (q_max + ONE) * F32(0.5)
    for b in range(low.size):
        if high[b] >= INFINITY_BITS or low[b] <= ~INFINITY_BITS:
            finite = False
        greatest = I32(high[b]).view(np.float32)
        least = I32(low[b] ^ ((low[b] >> I32(31)) & I32(0x7FFFFFFF))).view(np.float32)
        if symmetric:
            extreme = greatest if greatest > -least else least
            scale = -extreme / middle
            zero = middle
        else:
            scale = (greatest - least) / q_max
            if scale > F32(3.4028235e38):
                scale = greatest / q_max - least / q_max
            zero = ZERO - least / scale if scale != ZERO else ZERO
            zero = F32(I32(zero + ALMOST_HALF))
        scale = _round_scale(scale, kind)
        scales[b] = scale
        reciprocals[b] = _reciprocal(scale)
        zeros[b] = zero
    return finite


@_strict
def _quantize_row(values, block_size, reciprocals, zeros, q_max, levels):
    """clamp(round-half-away(x / scale + zero)), in the order of operations of MLAS."""
    for b in range(reciprocals.size):
        block = values[b * block_size : (b + 1) * block_size]
        out = levels[b * block_size : (b + 1) * block_size]
        reciprocal = reciprocals[b]
        zero = zeros[b]
        for j in range(block_size):
            level = block[j] * reciprocal + zero + ALMOST_HALF
            level = level if level > ZERO else ZERO
            level = level if level < q_max else q_max
            out[j] = np.uint8(I32(level))


@_strict
def _pack_row(levels, pairs, fours, bits, k, packed):
    """Pack levels, one to a byte, into `bits` bits each, low bits first; the last block's padding is 0, as in ORT."""
    for j in range(k, levels.size):
        levels[j] = np.uint8(0)
    if bits == 8:
        for j in range(packed.size):
            packed[j] = levels[j]
    elif bits == 4:
        for j in range(packed.size):
            pair = pairs[j]
            packed[j] = np.uint8(pair | (pair >> np.uint16(4)))
    else:
        for j in range(packed.size):
            four = fours[j]
            packed[j] = np.uint8(four | (four >> U32(6)) | (four >> U32(12)) | (four >> U32(18)))


@_strict
def _pack_zeros(zeros, bits, packed):
    """Pack a row's zero points; places beyond the last block hold the middle, as in ORT's quantizer."""
    per_byte = 8 // bits
    middle = 1 << (bits - 1)
    for i in range(packed.size):
        byte = 0
        for p in range(per_byte):
            b = i * per_byte + p
            zero = I32(zeros[b]) if b < zeros.size else I32(middle)
            byte |= zero << (p * bits)
        packed[i] = np.uint8(byte)


@_strict
def _interleave(source, block_size, target):
    """Lay GROUP blocks side by side so that a vector holds pairs of values of several blocks: [pair][block][2].

    The search then adds up in vector lanes without horizontal sums. The values move as 64-bit pairs, which halves the
    cost of the transposition compared with single values.
    """
    pairs = block_size // 2
    for p in range(pairs):
        for g in range(0, GROUP, 8):
            row = target[p * GROUP + g : p * GROUP + g + 8]
            column = source[g * pairs + p :]
            # Eight loads before eight stores: in a loop, each store could change what the next load reads.
            a, b, c, d = column[0], column[pairs], column[2 * pairs], column[3 * pairs]
            e, f, h, i = column[4 * pairs], column[5 * pairs], column[6 * pairs], column[7 * pairs]
            row[0], row[1], row[2], row[3] = a, b, c, d
            row[4], row[5], row[6], row[7] = e, f, h, i


@_strict
def _interleave_weights(importance, span, block_size, target):
    # This is a separate function, because numba leaves out a branch only where an argument is None by type.
    if importance is not None:
        _interleave(importance[span], block_size, target)


@_contracted
def _level(value, rate, shift, top):
    """The nearest level, relative to the zero point; shift is MAGIC + zero point, top is MAGIC + the highest level."""
    level = value * rate + shift
    level = level if level > MAGIC else MAGIC
    level = level if level < top else top
    return level - shift


@_contracted
def _fit(values, weights, lanes, top):
    """Round GROUP interleaved blocks at RATE and SHIFT; sum value * level and level^2 of each into CROSS and SQUARE.

    From the two sums follow the best scale for these levels, cross / square, and the error's decrease, cross^2 /
    square. CROSS comes out in units of the round-to-nearest scale.
    """
    for i in range(LANES):
        lanes[CROSS + i] = ZERO
        lanes[SQUARE + i] = ZERO
    for start in range(0, values.size, 8 * LANES):
        block = values[start : start + 8 * LANES]
        if weights is None:
            for i in range(LANES):
                rate = lanes[RATE + i]
                shift = lanes[SHIFT + i]
                cross = lanes[CROSS + i]
                square = lanes[SQUARE + i]
                # Eight steps by hand keep the sums in registers: LLVM vectorises over the lanes only.
                value = block[i]
                level = _level(value, rate, shift, top)
                cross += value * level
                square += level * level
                value = block[LANES + i]
                level = _level(value, rate, shift, top)
                cross += value * level
                square += level * level
                value = block[2 * LANES + i]
                level = _level(value, rate, shift, top)
                cross += value * level
                square += level * level
                value = block[3 * LANES + i]
                level = _level(value, rate, shift, top)
                cross += value * level
                square += level * level
                value = block[4 * LANES + i]
                level = _level(value, rate, shift, top)
                cross += value * level
                square += level * level
                value = block[5 * LANES + i]
                level = _level(value, rate, shift, top)
                cross += value * level
                square += level * level
                value = block[6 * LANES + i]
                level = _level(value, rate, shift, top)
                cross += value * level
                square += level * level
                value = block[7 * LANES + i]
                level = _level(value, rate, shift, top)
                cross += value * level
                square += level * level
                lanes[CROSS + i] = cross
                lanes[SQUARE + i] = square
        else:
            share = weights[start : start + 8 * LANES]
            for j in range(0, 8 * LANES, LANES):
                for i in range(LANES):
                    value = block[j + i]
                    level = _level(value, lanes[RATE + i], lanes[SHIFT + i], top)
                    weighted = share[j + i] * level
                    lanes[CROSS + i] += weighted * value
                    lanes[SQUARE + i] += weighted * level
    for g in range(0, LANES, 2):
        cross = (lanes[CROSS + g] + lanes[CROSS + g + 1]) * lanes[UNIT + g]
        square = lanes[SQUARE + g] + lanes[SQUARE + g + 1]
        lanes[CROSS + g] = cross
        lanes[CROSS + g + 1] = cross
        lanes[SQUARE + g] = square
        lanes[SQUARE + g + 1] = square


@_strict
def _keep_better(lanes):
    """Keep, for each block, the fit that decreases the error more: cross^2 / square, compared without a division."""
    for i in range(LANES):
        cross = lanes[CROSS + i]
        square = lanes[SQUARE + i]
        best_cross = lanes[BEST_CROSS + i]
        best_square = lanes[BEST_SQUARE + i]
        shift = lanes[SHIFT + i]  # loaded in any case: LLVM does not vectorise conditional loads
        best_shift = lanes[BEST_SHIFT + i]
        better = cross * cross * best_square > best_cross * best_cross * square
        lanes[BEST_CROSS + i] = cross if better else best_cross
        lanes[BEST_SQUARE + i] = square if better else best_square
        lanes[BEST_SHIFT + i] = shift if better else best_shift


@_strict
def _rate_of_best(lanes):
    """RATE becomes the reciprocal of the best scale so far."""
    for i in range(LANES):
        best_cross = lanes[BEST_CROSS + i]
        rate = lanes[BEST_SQUARE + i] / best_cross * lanes[UNIT + i]
        lanes[RATE + i] = rate if best_cross > ZERO else ZERO


@_strict
def _search(values, weights, lanes, shrink, symmetric, q_max, kind, scales, reciprocals, zeros):
    """Improve the round-to-nearest scales and zero points of up to GROUP blocks; see `reference.search`."""
    top = MAGIC + q_max
    for g in range(GROUP):
        unit = reciprocals[g] if g < scales.size else ZERO
        shift = MAGIC + (zeros[g] if g < scales.size else ZERO)
        for i in range(2 * g, 2 * g + 2):
            lanes[UNIT + i] = unit
            lanes[SHIFT + i] = shift
    for i in range(LANES):
        lanes[FIRST_SHIFT + i] = lanes[SHIFT + i]
        lanes[BEST_SHIFT + i] = lanes[SHIFT + i]
        lanes[BEST_CROSS + i] = ZERO
        lanes[BEST_SQUARE + i] = ONE
    for c in range(shrink.size):
        factor = shrink[c]
        for i in range(LANES):
            lanes[RATE + i] = lanes[UNIT + i] * factor
        _fit(values, weights, lanes, top)
        if c == 0:  # the first candidate is round-to-nearest itself
            for i in range(LANES):
                lanes[FIRST_GAIN + i] = (lanes[CROSS + i] + lanes[CROSS + i]) - lanes[SQUARE + i]
        _keep_better(lanes)
    if weights is not None and not symmetric:
        _rate_of_best(lanes)
        for side in range(2):
            step = F32(1 - 2 * side)
            for i in range(LANES):
                shift = lanes[FIRST_SHIFT + i] + step
                shift = shift if shift > MAGIC else MAGIC
                lanes[SHIFT + i] = shift if shift < top else top
            _fit(values, weights, lanes, top)
            _keep_better(lanes)
    for g in range(scales.size):
        cross = lanes[BEST_CROSS + 2 * g]
        square = lanes[BEST_SQUARE + 2 * g]
        scale = _round_scale(scales[g] * (cross / square), kind)
        unit = scale * reciprocals[g]
        gain = (unit + unit) * cross - unit * unit * square
        if gain > lanes[FIRST_GAIN + 2 * g] * MARGIN:
            scales[g] = scale
            reciprocals[g] = _reciprocal(scale)
            zeros[g] = lanes[BEST_SHIFT + 2 * g] - MAGIC


@_strict
def _in_units(scales, reciprocals):
    """Make a row's scales multiples of a unit, which is returned; see `reference.in_units`."""
    greatest = ZERO
    for b in range(scales.size):
        greatest = scales[b] if scales[b] > greatest else greatest
    exact = F32(greatest / MOST_UNITS).view(np.uint32)
    unit = U32((exact + U32(0xFFFF)) & U32(0xFFFF0000)).view(np.float32)
    rate = _reciprocal(unit)
    for b in range(scales.size):
        multiple = F32(I32(scales[b] * rate + F32(0.5)))
        multiple = multiple if multiple < MOST_UNITS else MOST_UNITS
        multiple = multiple if multiple > ONE or not scales[b] > ZERO or rate == ZERO else ONE
        scales[b] = multiple
        reciprocals[b] = _reciprocal(multiple * unit)
    return unit


@_strict
def _prepare_row(row, rows_kind, k, block_size, symmetric, q_max, scales_kind, scratch, at, scales):
    """Load a row to place `at` of the chunk and start its blocks; False where a value is not finite."""
    blocks = scales.size
    width = blocks * block_size
    bits = scratch.pattern[at * width : (at + 1) * width]
    here = slice(at * blocks, (at + 1) * blocks)
    _load_row(row, rows_kind, k, bits)
    _block_ranges(bits, block_size, scratch.low, scratch.high)
    reciprocals = scratch.reciprocals[here]
    return _start(scratch.low, scratch.high, symmetric, q_max, scales_kind, scales, reciprocals, scratch.zeros[here])


@_strict
def _emit_row(scratch, at, bits, block_size, k, symmetric, q_max, packed, zero_points):
    """Quantize and pack the row at place `at` of the chunk."""
    width = scratch.levels.size
    blocks = width // block_size
    here = slice(at * blocks, (at + 1) * blocks)
    values = scratch.values[at * width : (at + 1) * width]
    _quantize_row(values, block_size, scratch.reciprocals[here], scratch.zeros[here], q_max, scratch.levels)
    _pack_row(scratch.levels, scratch.levels_by_two, scratch.levels_by_four, bits, k, packed)
    if not symmetric:
        _pack_zeros(scratch.zeros[here], bits, zero_points)


@_strict
def _search_rows(scales, block_size, symmetric, q_max, scales_kind, scratch, search, shrink):
    """Search for better scales and zero points than those of the rows in work."""
    for b in range(0, scales.size, GROUP):
        end = b + GROUP if b + GROUP < scales.size else scales.size
        span = slice(b * block_size // 2, (b + GROUP) * block_size // 2)
        _interleave(scratch.pairs[span], block_size, search.group_pairs)
        _interleave_weights(search.importance_pairs, span, block_size, search.weights_pairs)
        reciprocals, zeros = scratch.reciprocals[b:end], scratch.zeros[b:end]
        _search(
            search.group, search.weights, search.lanes, shrink, symmetric, q_max, scales_kind,
            scales[b:end], reciprocals, zeros,
        )  # fmt: skip


@_strict
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
                units[i] = _in_units(scales[i * blocks : (i + 1) * blocks], reciprocals)
            _emit_row(scratch, r, bits, block_size, k, symmetric, q_max, packed[i], zero_points[i])
    return -1


# Entry points take addresses of arrays, then sizes. There is one for each type of rows, because arrays are typed.


@_strict
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
