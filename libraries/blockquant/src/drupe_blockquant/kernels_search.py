"""The search for the scales and zero points of a group of blocks, compiled by numba; `reference.search` is its twin.

The search may contract multiply and add, which neither hides NaN nor breaks rounding by a magic number (reassociation
would).
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc,attr-defined"

from drupe_blockquant.kernel_calls import GROUP, LANE_VALUES, LANES
from drupe_blockquant.kernels_common import F32, MAGIC, ONE, ZERO, contracted, strict
from drupe_blockquant.kernels_rows import reciprocal_of, round_scale

# A search result must be better than round-to-nearest by this share of the block's energy, so that float32 noise never
# makes a block worse.
MARGIN = F32(1.000001)

# Offsets at which the search keeps its values of each lane. They share one array, because LLVM must see that the parts
# do not overlap: with one array for each part it would not vectorise.
RATE, SHIFT, CROSS, SQUARE, UNIT, BEST_CROSS, BEST_SQUARE, BEST_SHIFT, FIRST_SHIFT, FIRST_GAIN = range(
    0, LANE_VALUES, LANES
)


@strict
def interleave(source, block_size, target):
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


@strict
def interleave_weights(importance, span, block_size, target):
    # This is a separate function, because numba leaves out a branch only where an argument is None by type.
    if importance is not None:
        interleave(importance[span], block_size, target)


@contracted
def _level(value, rate, shift, top):
    """The nearest level, relative to the zero point; shift is MAGIC + zero point, top is MAGIC + the highest level."""
    level = value * rate + shift
    level = level if level > MAGIC else MAGIC
    level = level if level < top else top
    return level - shift


@contracted
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


@strict
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


@strict
def _rate_of_best(lanes):
    """RATE becomes the reciprocal of the best scale so far."""
    for i in range(LANES):
        best_cross = lanes[BEST_CROSS + i]
        rate = lanes[BEST_SQUARE + i] / best_cross * lanes[UNIT + i]
        lanes[RATE + i] = rate if best_cross > ZERO else ZERO


@strict
def search_group(values, weights, lanes, shrink, symmetric, q_max, kind, scales, reciprocals, zeros):
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
        scale = round_scale(scales[g] * (cross / square), kind)
        unit = scale * reciprocals[g]
        gain = (unit + unit) * cross - unit * unit * square
        if gain > lanes[FIRST_GAIN + 2 * g] * MARGIN:
            scales[g] = scale
            reciprocals[g] = reciprocal_of(scale)
            zeros[g] = lanes[BEST_SHIFT + 2 * g] - MAGIC
