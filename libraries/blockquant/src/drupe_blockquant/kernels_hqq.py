"""The inner loop of HQQ, compiled by numba: round blocks, and sum what `hqq` needs to choose the next parameters.

A vector holds one place of several blocks, so nothing is summed across its lanes. The arithmetic is strict IEEE, in the
order of the numpy twin in `hqq`: the two agree to the bit.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc,attr-defined"

from collections.abc import Callable

import numpy as np
from numba import carray

from drupe_blockquant.hqq import LANES
from drupe_blockquant.kernels_common import F32, MAGIC, ONE, ZERO, strict

# Offsets of the lanes' parameters and sums. They share one array, because LLVM must see that the parts do not overlap:
# with one array for each part it would not vectorise.
SCALE, RATE, ZEROS, NORM, CROSS, SQUARE, SHIFT, END = range(0, 8 * LANES, LANES)


@strict
def _add_place(units, lanes, threshold, q_max):
    for b in range(LANES):
        unit = units[b]
        scale = lanes[SCALE + b]
        zero = lanes[ZEROS + b]
        place = unit * lanes[RATE + b] + zero
        place = place if place > ZERO else ZERO
        place = place if place < q_max else q_max
        level = (place + MAGIC) - MAGIC
        distance = level - zero
        error = unit - distance * scale
        size = abs(error)
        root = np.sqrt(size)
        root_of_root = np.sqrt(root)
        outlying = size - threshold / root_of_root
        outlying = outlying if outlying > ZERO else ZERO
        target = unit - (outlying if error > ZERO else -outlying)
        lanes[NORM + b] = lanes[NORM + b] + root * root_of_root
        lanes[CROSS + b] = lanes[CROSS + b] + target * distance
        lanes[SQUARE + b] = lanes[SQUARE + b] + distance * distance
        lanes[SHIFT + b] = lanes[SHIFT + b] + (level - target * lanes[RATE + b])


@strict
def _fit_blocks(units, scales, zeros, lanes, threshold, q_max, sums):
    tiles, size, _ = units.shape
    for t in range(tiles):
        for b in range(LANES):
            lanes[SCALE + b] = scales[t, b]
            lanes[RATE + b] = ONE / scales[t, b]
            lanes[ZEROS + b] = zeros[t, b]
        lanes[NORM:END] = ZERO
        for j in range(size):
            _add_place(units[t, j], lanes, threshold, q_max)
        for b in range(LANES):
            sums[0, t, b] = lanes[NORM + b]
            sums[1, t, b] = lanes[CROSS + b]
            sums[2, t, b] = lanes[SQUARE + b]
            sums[3, t, b] = lanes[SHIFT + b]


def _hqq_fit(units, scales, zeros, lanes, threshold, sums, tiles, size, q_max):
    _fit_blocks(
        carray(units, (tiles, size, LANES), np.float32), carray(scales, (tiles, LANES), np.float32),
        carray(zeros, (tiles, LANES), np.float32), carray(lanes, (END,), np.float32),
        carray(threshold, (1,), np.float32)[0], F32(q_max), carray(sums, (4, tiles, LANES), np.float32),
    )  # fmt: skip
    return 0


ENTRY_POINTS: dict[str, Callable[..., int]] = {"hqq_fit": _hqq_fit}
