"""The numpy twin of the kernels: the same arithmetic, readable, some fifty times slower.

It is used where numba is missing or DRUPE_BLOCKQUANT=numpy is set, and tests compare the kernels with it.
Round-to-nearest agrees with the kernels to the byte, the search up to the last bit of its sums.
"""

import numpy as np
import numpy.typing as npt

from drupe_blockquant.layout import Quantized, pack_levels, pack_zero_points
from drupe_blockquant.scheme import NonFiniteError, Scheme

Float32 = npt.NDArray[np.float32]

ALMOST_HALF = np.float32(0.49999997)
_SMALLEST_NORMAL = np.float32(1.17549435e-38)
MARGIN = np.float32(1.000001)
_MOST_UNITS = np.float32(255)
_FLOAT16_MAX = np.float32(65504.0)
_BFLOAT16_MAX = np.float32(3.3895314e38)

# Candidates of the search, as factors of the round-to-nearest scale, which comes first. Chosen on normal, Laplace and
# Student t data: a few coarse steps followed by least squares do better than twenty fine ones without it.
_FACTORS: dict[tuple[int, bool], tuple[float, ...]] = {
    (2, True): (1.0, 1.2, 0.9, 0.8, 0.7, 0.6, 0.5),
    (2, False): (1.0, 1.2, 0.9, 0.8, 0.7, 0.6, 0.5),
    (4, True): (1.0, 1.12, 1.06, 0.94, 0.88, 0.82, 0.76),
    (4, False): (1.0, 1.06, 0.95, 0.9),
    (8, True): (1.0, 1.003, 0.997, 0.994, 0.985, 0.975),
    (8, False): (1.0, 1.003, 0.997, 0.994, 0.985),
}


def shrink_factors(bits: int, symmetric: bool) -> Float32:
    """Reciprocals of the candidate factors, which multiply the reciprocal of the round-to-nearest scale."""
    return (np.float32(1) / np.array(_FACTORS[bits, symmetric], np.float32)).astype(np.float32)


def round_scales(scales: Float32, dtype: str) -> Float32:
    """Round to the dtype in which scales are stored, ties to even; overflow saturates instead of giving infinities."""
    if dtype == "float16":
        return np.clip(scales, -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = scales.view(np.uint32)
        bits = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
        return np.clip(bits.view(np.float32), -_BFLOAT16_MAX, _BFLOAT16_MAX)
    return scales


def in_units(scales: Float32) -> tuple[Float32, Float32]:
    """Scales [n, blocks], none negative, as the nearest multiples (0 to 255) of a unit for each row [n, 1].

    The unit is the largest scale / 255, rounded up to bfloat16, so each product is exact in float32. A scale that is
    not 0 becomes at least 1 unit, unless the unit is too small to divide by: then the row becomes zeros.
    """
    exact = scales.max(-1, keepdims=True) / _MOST_UNITS
    units = ((exact.view(np.uint32) + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)
    rates = reciprocal(units)
    multiples = np.clip(np.trunc(scales * rates + np.float32(0.5)), np.float32(0), _MOST_UNITS)
    return np.where((scales > 0) & (rates > 0), np.maximum(multiples, np.float32(1)), np.float32(0)), units


def quantize(values: Float32, scheme: Scheme, scales_dtype: str, importance: Float32 | None) -> Quantized:
    """Quantize float32 rows [n, k]; scales and units come back as float32, exact in the dtype that stores them."""
    k = values.shape[1]
    x = blocks_of(values, scheme)
    blocks, size = x.shape[1:]
    with np.errstate(all="ignore"):
        scales, zeros = start(x, scheme, scales_dtype)
        if scheme.method == "search":
            weights = None if importance is None else np.pad(importance, (0, blocks * size - k)).reshape(blocks, size)
            scales, zeros = search(x, weights, scales, zeros, scheme, scales_dtype)
    return emit(x, scales, zeros, scheme, k)


def blocks_of(values: Float32, scheme: Scheme) -> Float32:
    """Rows [n, k] as blocks [n, blocks, size], the last one padded with zeros. Raises NonFiniteError."""
    finite = np.isfinite(values)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise NonFiniteError(int(row), int(column))
    n, k = values.shape
    blocks, size = scheme.blocks(k), scheme.block_size
    padded = np.zeros((n, blocks * size), np.float32)
    padded[:, :k] = values
    return padded.reshape(n, blocks, size)


def emit(x: Float32, scales: Float32, zeros: Float32, scheme: Scheme, k: int) -> Quantized:
    """Round blocks to the levels of their scales and zero points, and pack them; padding becomes level 0."""
    units = None
    with np.errstate(all="ignore"):
        if scheme.two_level:
            scales, units = in_units(scales)
        steps = scales if units is None else scales * units
        levels = x * reciprocal(steps)[..., None] + zeros[..., None] + ALMOST_HALF
    levels = np.clip(levels, 0, (1 << scheme.bits) - 1).astype(np.uint8)
    levels.reshape(len(x), -1)[:, k:] = 0
    packed = pack_levels(levels, scheme.bits)
    zero_points = None if scheme.symmetric else pack_zero_points(zeros.astype(np.uint8), scheme.bits)
    return Quantized(packed, scales, zero_points, units)


def start(x: Float32, scheme: Scheme, scales_dtype: str) -> tuple[Float32, Float32]:
    """Round-to-nearest scales and zero points of blocks [n, blocks, size], as MLAS computes them.

    Symmetric: the value of largest magnitude goes to level 0, so a scale carries the opposite of its sign. Asymmetric:
    the range is stretched to hold 0, so that 0 has an exact level.
    """
    least = np.minimum(x.min(-1), 0)
    greatest = np.maximum(x.max(-1), 0)
    q_max = np.float32((1 << scheme.bits) - 1)
    if scheme.symmetric:
        middle = np.float32(1 << (scheme.bits - 1))
        scales = -np.where(greatest > -least, greatest, least) / middle
        return round_scales(scales, scales_dtype), np.full(scales.shape, middle, np.float32)
    span = greatest - least
    scales = np.where(np.isinf(span), greatest / q_max - least / q_max, span / q_max)
    zeros = np.where(scales != 0, np.float32(0) - least / scales, np.float32(0))
    return round_scales(scales, scales_dtype), np.trunc(zeros + ALMOST_HALF)


def search(
    x: Float32, weights: Float32 | None, scales: Float32, zeros: Float32, scheme: Scheme, scales_dtype: str
) -> tuple[Float32, Float32]:
    """Scales and zero points of a smaller (weighted) squared error, by a few candidates and least squares.

    For given levels q, the error sum w (x - s (q - z))^2 is smallest at s = c / d, with c = sum w x (q - z) and d = sum
    w (q - z)^2; it is then sum w x^2 - c^2 / d. Two sums therefore judge a candidate at its best scale, as in the scale
    search of llama.cpp's k-quants (ggml-quants.c, make_qx_quants and make_qkx2_quants). The steps:

    1. round with each candidate scale (shrunk and stretched round-to-nearest ones), keep the best c^2 / d;
    2. asymmetric and weighted: try the two neighbouring zero points with that best scale (integer zero points; HQQ,
       Badri and Shaji 2023, solves for real ones, which ONNX Runtime's fast kernels do not take). Without weights this
       step is left out: on trained weights it adds a hundredth to the gain of the search, and a third to its time;
    3. solve for the scale of the best levels, and round it to its dtype. The caller rounds the values with it, which
       decreases the error once more; solving again after that adds a fiftieth to the gain of the search, and a quarter
       to its time.

    A block whose error does not decrease keeps its round-to-nearest parameters.
    """
    q_max = np.float32((1 << scheme.bits) - 1)
    rates = reciprocal(scales)
    units = x * rates[..., None]
    weighted = units if weights is None else units * weights

    def fit(rate: Float32, zero: Float32) -> tuple[Float32, Float32]:
        levels = np.clip(np.rint(units * rate[..., None]), -zero[..., None], q_max - zero[..., None])
        own = levels if weights is None else levels * weights
        return (weighted * levels).sum(-1), (own * levels).sum(-1)

    best_cross, best_square, best_zeros = np.zeros_like(scales), np.ones_like(scales), zeros.copy()

    def keep_better(cross: Float32, square: Float32, zero: Float32) -> None:
        better = cross * cross * best_square > best_cross * best_cross * square
        best_cross[better], best_square[better], best_zeros[better] = cross[better], square[better], zero[better]

    first_gain = np.zeros_like(scales)
    for index, factor in enumerate(shrink_factors(scheme.bits, scheme.symmetric)):
        cross, square = fit(np.full_like(scales, factor), zeros)
        if index == 0:
            first_gain = 2 * cross - square
        keep_better(cross, square, zeros)
    if weights is not None and not scheme.symmetric:
        rate = np.where(best_cross != 0, best_square / best_cross, np.float32(0))
        for side in (1, -1):
            zero = np.clip(zeros + np.float32(side), np.float32(0), q_max)
            keep_better(*fit(rate, zero), zero)
    found = round_scales(scales * (best_cross / best_square), scales_dtype)
    unit = found * rates
    better = 2 * unit * best_cross - unit * unit * best_square > first_gain * MARGIN
    return np.where(better, found, scales), np.where(better, best_zeros, zeros)


def reciprocal(scales: Float32) -> Float32:
    """1 / scale, or 0 where that would be infinite: the block then becomes zeros."""
    return np.where(np.abs(scales) >= _SMALLEST_NORMAL, np.float32(1) / scales, np.float32(0))
