"""The search for AWQ's scales (Lin et al. 2023, arXiv 2306.00978): those with the least error after quantizing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from drupe_blockquant import Scheme, dequantize_rows, quantize_rows
from drupe_onnx import Expression, Files, ir, numeric

Float32 = NDArray[np.float32]

GRID = 20
"""Exponents that are tried: 0 (no scaling), 1/20, ... 19/20."""
SMALLEST = 1e-4
"""The smallest mean magnitude of a channel: without it, a channel that is never used would get an infinite scale."""
ROWS, PIECE = 1024, 32
"""How many rows of a matrix the search uses at most, and the size of the pieces that they are taken in. A part of the
rows is enough, because scales belong to columns. The pieces are small, so they cover queries, keys and values."""


def candidates(mean: Float32) -> Float32:
    """Scales to try [GRID, channels]: powers of the channels' mean magnitudes, around 1. The first row is all 1."""
    exponents = np.arange(GRID, dtype=np.float32)[:, None] / GRID
    scales = np.maximum(mean, SMALLEST).astype(np.float32) ** exponents
    middle = np.sqrt(scales.max(1, keepdims=True) * scales.min(1, keepdims=True))
    found: Float32 = (scales / middle).astype(np.float32)
    return found


def output_errors(
    matrix: Expression, scheme: Scheme, sample: Float32, scales: Float32, threads: int = 1
) -> NDArray[np.float64]:
    """The squared error of `matrix` [N, K] times `sample` [T, K] if it is quantized after each row of `scales` [., K].

    The error is summed over outputs and rows of the sample. If only some outputs are computed, it is scaled up to all.
    """
    rows, pieces = matrix.shape[0], list(_pieces(matrix.shape[0]))
    # One thread for each product: BLAS's own threads would wait for one another longer than these products take.
    with Files() as files, ThreadPoolExecutor(threads) as pool, threadpool_limits(1, "blas"):

        def errors(piece: tuple[int, int]) -> list[float]:
            held = numeric.cast(matrix.rows(*piece, files), ir.DataType.FLOAT, files)
            return list(_errors(held, scheme, sample, scales))

        total: NDArray[np.float64] = np.sum(list(pool.map(errors, pieces)), axis=0)
    return total * (rows / sum(stop - start for start, stop in pieces))


def _pieces(rows: int) -> Iterator[tuple[int, int]]:
    """The ranges of rows that the search uses: all rows, or pieces at equal distances."""
    count = -(-min(rows, ROWS) // PIECE)
    for place in range(count):
        start = place * rows // count if rows > ROWS else place * PIECE
        yield start, min(start + PIECE, rows)


def _errors(weights: Float32, scheme: Scheme, sample: Float32, scales: Float32) -> Iterator[float]:
    """The error for each row of scales; infinite where weights become too large for a float."""
    for scale in scales:
        with np.errstate(over="ignore"):
            scaled = weights * scale
            if not np.isfinite(scaled).all():
                yield math.inf
                continue
            difference = dequantize_rows(quantize_rows(scaled, scheme), scheme, weights.shape[1])
            difference /= scale
            difference -= weights
            yield float(np.square(sample @ difference.T).sum(dtype=np.float64))


def best_scales(
    matrices: Sequence[tuple[Expression, Scheme]],
    sample: Float32,
    mean: Float32,
    channels: NDArray[np.intp],
    threads: int = 1,
) -> Float32:
    """The row of `candidates` for `mean` with the least total error of the quantized matrices.

    matrices: each [N, K] with the scheme that it will have. sample: [T, K], rows of their input.
    channels: for each of the K columns, the index of its mean and of its scale.
    """
    scales = candidates(mean)
    spread = scales[:, channels]
    errors = np.sum([output_errors(matrix, scheme, sample, spread, threads) for matrix, scheme in matrices], axis=0)
    best: Float32 = scales[int(np.argmin(errors))]
    return best
