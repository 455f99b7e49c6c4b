"""HQQ: scales and zero points that fit most of a block well, by half-quadratic splitting, without calibration data.

Badri and Shaji 2023 (mobiusml.github.io/hqq_blog): the sum of |error|^p with p < 1 is minimized, which forgives
outliers. Two steps alternate: a shrinkage moves the outlying part of each error into an auxiliary array, and the best
parameters for the rest are found in closed form. Unlike in the paper, zero points end up integer, because ONNX
Runtime's fast kernels take only those: they are rounded, then the scale is solved for. p is 3/4 (in the paper 0.7),
because its powers are computed with square roots.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from drupe_blockquant.layout import Quantized
from drupe_blockquant.reference import MARGIN, blocks_of, emit, reciprocal, round_scales, start
from drupe_blockquant.scheme import Scheme

Float32 = npt.NDArray[np.float32]

# In units of the round-to-nearest scale; the paper's values are absolute. A weaker start (more of each error counts as
# outlying) or more iterations change the norm by less than a hundredth on trained weights.
_BETA = 3.0
_BETA_GROWTH = 1.01
_ZERO_TURNS = 6
_SCALE_TURNS = 4


class Sums(NamedTuple):
    """Sums over each block, rounded with a scale and a zero point; all float32 [tiles, LANES].

    `norm` sums |error|^p. With d = level - zero, and y the value without the outlying part of its error: `cross` sums
    y d, `square` sums d^2, and `shift` sums level - y / scale, whose mean is the best zero point for these levels.
    """

    norm: Float32
    cross: Float32
    square: Float32
    shift: Float32


LANES = 64  # blocks in a tile, which lie side by side, place by place
# fit(units [tiles, block size, LANES], scales [tiles, LANES], zeros [tiles, LANES], threshold, highest level)
Fit = Callable[[Float32, Float32, Float32, float, int], Sums]


def quantize(values: Float32, scheme: Scheme, scales_dtype: str, fit: Fit) -> Quantized:
    """Quantize finite float32 rows [n, k], as `reference.quantize` does. `fit` is `fit_blocks` or its kernel."""
    x = blocks_of(values, scheme)
    with np.errstate(all="ignore"):
        scales, zeros = start(x, scheme, scales_dtype)
        scales, zeros = _improve(x, scales, zeros, scheme, scales_dtype, fit)
    return emit(x, scales, zeros, scheme, values.shape[1])


def fit_blocks(units: Float32, scales: Float32, zeros: Float32, threshold: float, q_max: int) -> Sums:
    """The kernel's numpy twin."""
    rates, scales, zeros = (part[:, None] for part in (np.float32(1) / scales, scales, zeros))
    places = np.clip(units * rates + zeros, np.float32(0), np.float32(q_max))
    levels = np.rint(places)
    distances = levels - zeros
    errors = units - distances * scales
    roots = np.sqrt(np.abs(errors))
    roots_of_roots = np.sqrt(roots)
    outlying = np.maximum(np.abs(errors) - np.float32(threshold) / roots_of_roots, np.float32(0))
    targets = units - np.where(errors > 0, outlying, -outlying)
    terms = (roots * roots_of_roots, targets * distances, distances * distances, levels - targets * rates)
    # One place after the other, as in the kernel: numpy's own sum may add them in another order.
    return Sums(*(np.add.accumulate(term, axis=1)[:, -1] for term in terms))


def _improve(
    x: Float32, scales: Float32, zeros: Float32, scheme: Scheme, scales_dtype: str, fit: Fit
) -> tuple[Float32, Float32]:
    """Scales and zero points of a smaller norm than the given round-to-nearest ones, which stay where none is found."""
    q_max, count, size = (1 << scheme.bits) - 1, scales.size, scheme.block_size
    first, zero = _tiled(scales), _tiled(zeros)
    rates = reciprocal(first)
    units = np.ascontiguousarray(_tiled(x, size).transpose(0, 2, 1) * rates[:, None])
    beta = _BETA
    candidate = np.ones_like(first)
    best_scales, best_zeros = first.copy(), zero
    least = fit(units, candidate, zero, 1 / beta, q_max).norm / MARGIN
    for _ in range(0 if scheme.symmetric else _ZERO_TURNS):
        zero = np.clip(fit(units, candidate, zero, 1 / beta, q_max).shift / np.float32(size), 0, q_max)
        beta *= _BETA_GROWTH
    zero = np.rint(zero)
    sums = fit(units, candidate, zero, 1 / beta, q_max)
    for _ in range(_SCALE_TURNS):
        solved = np.where((sums.cross > 0) & (sums.square > 0), sums.cross / sums.square, np.float32(1))
        rounded = round_scales(first * solved, scales_dtype)
        usable = (rates * rounded > 0) & (reciprocal(rounded) != 0)
        candidate = np.where(usable, rates * rounded, np.float32(1))
        sums = fit(units, candidate, zero, 1 / beta, q_max)
        better = usable & (sums.norm < least)
        least, best_scales = np.where(better, sums.norm, least), np.where(better, rounded, best_scales)
        best_zeros = np.where(better, zero, best_zeros)
    shape = scales.shape
    return best_scales.reshape(-1)[:count].reshape(shape), best_zeros.reshape(-1)[:count].reshape(shape)


def _tiled(of_blocks: Float32, *size: int) -> Float32:
    """Values of each block as [tiles, LANES] or [tiles, LANES, size], filled up with zeros."""
    flat = of_blocks.reshape(-1, *size)
    tiles = -(-len(flat) // LANES)
    filled = np.zeros((tiles * LANES, *size), np.float32)
    filled[: len(flat)] = flat
    return filled.reshape(tiles, LANES, *size)
