"""One row, compiled by numba: load it, start its blocks' scales and zero points, round it to nearest, pack its levels.

All of it is strict IEEE arithmetic, because the bytes must equal ONNX Runtime's.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc,attr-defined"

import numpy as np

from drupe_blockquant.kernels_common import ALMOST_HALF, F32, I32, ONE, U32, ZERO, strict

SMALLEST_NORMAL = F32(1.17549435e-38)
INFINITY_BITS = I32(0x7F800000)
TWO_LEVEL, BFLOAT16, FLOAT16, FLOAT32 = 3, 2, 1, 0  # codes for dtypes of rows and scales
MOST_UNITS = F32(255)


@strict
def round_scale(scale, kind):
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


@strict
def reciprocal_of(scale):
    """1 / scale, or 0 where that would be infinite: the block then becomes zeros."""
    return ONE / scale if scale >= SMALLEST_NORMAL or scale <= -SMALLEST_NORMAL else ZERO


@strict
def load_row(row, kind, k, bits):
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


@strict
def block_ranges(bits, block_size, low, high):
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


@strict
def start_blocks(low, high, symmetric, q_max, kind, scales, reciprocals, zeros):
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
        scale = round_scale(scale, kind)
        scales[b] = scale
        reciprocals[b] = reciprocal_of(scale)
        zeros[b] = zero
    return finite


@strict
def quantize_row(values, block_size, reciprocals, zeros, q_max, levels):
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


@strict
def pack_row(levels, pairs, fours, bits, k, packed):
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


@strict
def pack_zeros(zeros, bits, packed):
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


@strict
def in_units(scales, reciprocals):
    """Make a row's scales multiples of a unit, which is returned; see `reference.in_units`."""
    greatest = ZERO
    for b in range(scales.size):
        greatest = scales[b] if scales[b] > greatest else greatest
    exact = F32(greatest / MOST_UNITS).view(np.uint32)
    unit = U32((exact + U32(0xFFFF)) & U32(0xFFFF0000)).view(np.float32)
    rate = reciprocal_of(unit)
    for b in range(scales.size):
        multiple = F32(I32(scales[b] * rate + F32(0.5)))
        multiple = multiple if multiple < MOST_UNITS else MOST_UNITS
        multiple = multiple if multiple > ONE or not scales[b] > ZERO or rate == ZERO else ONE
        scales[b] = multiple
        reciprocals[b] = reciprocal_of(multiple * unit)
    return unit
