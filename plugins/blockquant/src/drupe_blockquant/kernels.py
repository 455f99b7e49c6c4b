"""The inner loops as numba kernels: load a row, find block ranges, start parameters, search, quantize, pack.

One entry point per method works on a range of rows and releases the GIL; callers own the threads (numba's
`parallel=True` aborts when it is entered from two Python threads). Every block size, bit width and dtype of scales is a
run-time argument, so one run compiles one or two kernels. All kernels live in this file because numba's disk cache is
invalidated by the time of the file that defines the entry point only.

Everything is float32. The round-to-nearest path is strict IEEE arithmetic, because its bytes must equal ONNX Runtime's;
the search may contract multiply and add, which neither hides NaN nor breaks rounding by a magic number (reassociation
would).
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types

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

GROUP = 16  # blocks that the search handles at once
LANES = 2 * GROUP  # two partial sums a block, see `_interleave`
# Where the search keeps what it knows of each lane. One array with fixed offsets, because LLVM must see that the parts
# do not overlap: with an array each it would give up on vectorising.
RATE, SHIFT, CROSS, SQUARE, UNIT, BEST_CROSS, BEST_SQUARE, BEST_SHIFT, FIRST_SHIFT, FIRST_GAIN = range(
    0, 10 * LANES, LANES
)
CHUNK = 16384  # values that the search loads at a time: 64 kB stay in the second-level cache

BFLOAT16, FLOAT16, FLOAT32 = 2, 1, 0  # codes for dtypes of rows and scales

# numpy's error model: no exception (and no branch that would keep a loop from being vectorised) at a division by zero.
_strict = njit(error_model="numpy")
_contracted = njit(error_model="numpy", fastmath={"contract"})


@_strict
def _round_scale(scale, kind):
    """Round a float32 to the dtype in which scales are stored, ties to even; overflow saturates."""
    bits = F32(scale).view(np.uint32)
    magnitude = bits & U32(0x7FFFFFFF)
    sign = bits & U32(0x80000000)
    if kind == BFLOAT16:
        magnitude = (magnitude + U32(0x7FFF) + ((magnitude >> U32(16)) & U32(1))) & U32(0xFFFF0000)
        magnitude = min(magnitude, U32(0x7F7F0000))
    elif kind == FLOAT16:
        if magnitude < U32(0x38800000):  # below 2^-14 float16 steps by 2^-24, as float32 does from a half to one
            step = F32(F32(abs(F32(scale)) + F32(0.5)) - F32(0.5))
            magnitude = F32(step).view(np.uint32)
        else:
            magnitude = (magnitude + U32(0xFFF) + ((magnitude >> U32(13)) & U32(1))) & U32(0xFFFFE000)
            magnitude = min(magnitude, U32(0x477FE000))
    return U32(sign | magnitude).view(np.float32)


@_strict
def _reciprocal(scale):
    """1 / scale, or 0 where that would be infinite: the block then becomes zeros."""
    return ONE / scale if abs(scale) >= SMALLEST_NORMAL else ZERO


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
        values = bits.view(np.float32)
        for j in range(k):
            half = U32(row[j])
            magnitude = U32((half & U32(0x7FFF)) << U32(13))
            # Scaling by 2^112 moves the exponent's bias and makes subnormals normal, exactly.
            scaled = F32(U32(magnitude).view(np.float32) * F32(2.0**112)).view(np.uint32)
            special = U32(0x7F800000) if magnitude >= U32(0x0F800000) else U32(0)
            values[j] = U32(scaled | special | ((half & U32(0x8000)) << U32(16))).view(np.float32)


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
def _pack_row(levels, bits, k, packed):
    """Pack one byte a level to `bits` a level, low bits first; the padding of the last block becomes 0, as ORT's."""
    for j in range(k, levels.size):
        levels[j] = np.uint8(0)
    if bits == 8:
        for j in range(packed.size):
            packed[j] = levels[j]
    elif bits == 4:
        pairs = levels.view(np.uint16)
        for j in range(packed.size):
            pair = pairs[j]
            packed[j] = np.uint8(pair | (pair >> np.uint16(4)))
    else:
        fours = levels.view(np.uint32)
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
def _interleave(values, block_size, out):
    """Lay GROUP blocks side by side so that a vector holds pairs of values of several blocks: [pair][block][2].

    The search then adds up in vector lanes without horizontal sums, and the values move as 64-bit pairs, which halves
    the cost of the transposition against single values.
    """
    source = values.view(np.uint64)
    target = out.view(np.uint64)
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
        better = cross * cross * best_square > best_cross * best_cross * square
        lanes[BEST_CROSS + i] = cross if better else best_cross
        lanes[BEST_SQUARE + i] = square if better else best_square
        lanes[BEST_SHIFT + i] = lanes[SHIFT + i] if better else lanes[BEST_SHIFT + i]


@_strict
def _rate_of_best(lanes):
    """RATE becomes the reciprocal of the best scale so far."""
    for i in range(LANES):
        best_cross = lanes[BEST_CROSS + i]
        rate = lanes[BEST_SQUARE + i] / best_cross * lanes[UNIT + i]
        lanes[RATE + i] = rate if best_cross > ZERO else ZERO


@_strict
def _search(values, weights, lanes, shrink, symmetric, q_max, kind, scales, reciprocals, zeros):
    """Improve the scales and zero points of up to GROUP blocks, given round-to-nearest ones; see `reference.search`."""
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
    _rate_of_best(lanes)
    if not symmetric:
        for side in range(2):
            step = F32(1 - 2 * side)
            for i in range(LANES):
                shift = lanes[FIRST_SHIFT + i] + step
                shift = shift if shift > MAGIC else MAGIC
                lanes[SHIFT + i] = shift if shift < top else top
            _fit(values, weights, lanes, top)
            _keep_better(lanes)
        _rate_of_best(lanes)
    for i in range(LANES):
        lanes[SHIFT + i] = lanes[BEST_SHIFT + i]
    _fit(values, weights, lanes, top)
    for g in range(scales.size):
        cross = lanes[CROSS + 2 * g]
        square = lanes[SQUARE + 2 * g]
        scale = _round_scale(scales[g] * (cross / square if square > ZERO else ONE), kind)
        unit = scale * reciprocals[g]
        gain = (unit + unit) * cross - unit * unit * square
        if gain > lanes[FIRST_GAIN + 2 * g] * MARGIN:
            scales[g] = scale
            reciprocals[g] = _reciprocal(scale)
            zeros[g] = lanes[BEST_SHIFT + 2 * g] - MAGIC


def _quantize_rtn(rows, rows_kind, k, bits, block_size, symmetric, scales_kind, packed, scales, zero_points):
    """Round to nearest; returns the first row that holds a value that is not finite, or -1."""
    blocks = scales.shape[1]
    q_max = F32((1 << bits) - 1)
    pattern = np.zeros(blocks * block_size, np.int32)
    values = pattern.view(np.float32)
    levels = np.zeros(blocks * block_size, np.uint8)
    low = np.empty(blocks, np.int32)
    high = np.empty(blocks, np.int32)
    reciprocals = np.empty(blocks, np.float32)
    zeros = np.empty(blocks, np.float32)
    for i in range(rows.shape[0]):
        _load_row(rows[i], rows_kind, k, pattern)
        _block_ranges(pattern, block_size, low, high)
        if not _start(low, high, symmetric, q_max, scales_kind, scales[i], reciprocals, zeros):
            return i
        _quantize_row(values, block_size, reciprocals, zeros, q_max, levels)
        _pack_row(levels, bits, k, packed[i])
        if not symmetric:
            _pack_zeros(zeros, bits, zero_points[i])
    return -1


def _quantize_search(
    rows,
    rows_kind,
    k,
    bits,
    block_size,
    symmetric,
    scales_kind,
    packed,
    scales,
    zero_points,
    shrink,
    importance,
    weights,
):
    """The error search; returns the first row that holds a value that is not finite, or -1.

    `importance` is None or a weight for each column, and `weights` None or a buffer of GROUP * block_size values: numba
    compiles the weighted search only where they are arrays, and needs to see their types from outside for that.
    Rows are taken several at a time, because a row of 7 blocks would leave most of a group's lanes empty.
    """
    blocks = scales.shape[1]
    width = blocks * block_size
    q_max = F32((1 << bits) - 1)
    at_once = max(1, min(rows.shape[0], CHUNK // width))
    groups = -(-at_once * blocks // GROUP)
    pattern = np.zeros(groups * GROUP * block_size, np.int32)
    values = pattern.view(np.float32)
    levels = np.zeros(width, np.uint8)
    low = np.empty(blocks, np.int32)
    high = np.empty(blocks, np.int32)
    found = np.empty(at_once * blocks, np.float32)
    reciprocals = np.empty(at_once * blocks, np.float32)
    zeros = np.empty(at_once * blocks, np.float32)
    group = np.empty(GROUP * block_size, np.float32)
    lanes = np.zeros(10 * LANES, np.float32)
    if importance is not None:
        padded = np.zeros(values.size, np.float32)
        for r in range(at_once):
            padded[r * width : r * width + k] = importance
    for first in range(0, rows.shape[0], at_once):
        count = min(at_once, rows.shape[0] - first)
        for r in range(count):
            row = slice(r * width, (r + 1) * width)
            here = slice(r * blocks, (r + 1) * blocks)
            _load_row(rows[first + r], rows_kind, k, pattern[row])
            _block_ranges(pattern[row], block_size, low, high)
            if not _start(low, high, symmetric, q_max, scales_kind, found[here], reciprocals[here], zeros[here]):
                return first + r
        for b in range(0, count * blocks, GROUP):
            end = min(b + GROUP, count * blocks)
            span = slice(b * block_size, (b + GROUP) * block_size)
            _interleave(values[span], block_size, group)
            if importance is not None:
                _interleave(padded[span], block_size, weights)
            _search(
                group, weights, lanes, shrink, symmetric, q_max, scales_kind,
                found[b:end], reciprocals[b:end], zeros[b:end],
            )  # fmt: skip
        for r in range(count):
            here = slice(r * blocks, (r + 1) * blocks)
            scales[first + r] = found[here]
            _quantize_row(
                values[r * width : (r + 1) * width], block_size, reciprocals[here], zeros[here], q_max, levels
            )
            _pack_row(levels, bits, k, packed[first + r])
            if not symmetric:
                _pack_zeros(zeros[here], bits, zero_points[first + r])
    return -1


def _signature(row_bytes: int, search: bool, weighted: bool) -> Any:
    i64 = types.int64
    pattern = types.uint16 if row_bytes == 2 else types.uint32
    # A signature that asks for less (read-only, unaligned) accepts every C-contiguous array without compiling again.
    rows = types.Array(pattern, 2, "C", readonly=True, aligned=False)
    u8 = types.Array(types.uint8, 2, "C")
    f32 = types.Array(types.float32, 2, "C")
    vector = types.Array(types.float32, 1, "C", readonly=True)
    importance = (vector, types.Array(types.float32, 1, "C")) if weighted else (types.none, types.none)
    common = (rows, i64, i64, i64, i64, types.boolean, i64, u8, f32, u8)
    return i64(*common, vector, *importance) if search else i64(*common)


_kernels: dict[tuple[int, bool, bool], Callable[..., int]] = {}
_lock = threading.Lock()


def kernel(row_bytes: int, search: bool, weighted: bool) -> Callable[..., int]:
    """The compiled entry point for rows of 2 or 4 bytes a value, from the disk cache where that is possible."""
    key = (row_bytes, search, weighted)
    with _lock:
        if key not in _kernels:
            function = _quantize_search if search else _quantize_rtn
            signature = _signature(*key)
            try:
                _kernels[key] = njit(signature, nogil=True, error_model="numpy", cache=True)(function)
            except Exception:
                # No folder that numba may write its cache to, a full disk, or a damaged cache file: none of them is a
                # reason to fail, and a real compilation error comes back from here.
                _kernels[key] = njit(signature, nogil=True, error_model="numpy")(function)
        return _kernels[key]
