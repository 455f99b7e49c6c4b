"""GPTQ: round a matrix column after column, and let the columns that follow make up for each rounding error.

Frantar et al. 2022 (arXiv 2210.17323). The loss is tr((W - Q) H (W - Q)^T), where H is the Hessian of the inputs, the
sum of x x^T over tokens. Columns are processed by descending diagonal of H ("act-order"), with static groups: scales
and zero points are found beforehand, for the blocks of the layout, so the result does not depend on the order.
"""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from drupe.api import Record, replace
from drupe_blockquant.layout import Quantized, as_float32, dequantize_rows, pack_levels, unpack_zero_points
from drupe_blockquant.quantize import backend, quantize_rows
from drupe_blockquant.reference import ALMOST_HALF, reciprocal
from drupe_blockquant.scheme import NonFiniteError, Scheme

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_BLOCK = 128  # columns between two updates of all later columns; also the size of the factorization's tiles
_ROWS_AT_ONCE = 256  # so that the work of one call stays small beside the factor
# GPTQ's loss is a sum of float32 products: to count as better it must beat round-to-nearest by more than their noise.
_MARGIN = 1e-5


class GptqFactor(Record):
    """A factored Hessian [K, K], which serves all matrices that read the same inputs.

    With H' the Hessian divided by the mean of its diagonal, plus `damping` on the diagonal, in the order of
    processing: H' = R R^T with R upper triangular, and U = R^-1 is the upper Cholesky factor of the inverse.
    `triangles` float32 [K, K] holds R^T below its diagonal. For each tile T of columns, its upper triangle and diagonal
    hold U[T, T], and above the tile what an error of an earlier column is to the columns of T: R[:T, T] U[T, T].
    `order` [K] lists the columns in the order of processing. `importance` float32 [K] is what a squared error of each
    column adds to the loss when later columns make up for it as well as they can: 1 / U_jj^2.

    Only the tiles of U on the diagonal are computed: errors of earlier tiles are carried over by R, not by U. Both give
    the same (GPTQ is Babai's nearest plane; arXiv 2507.18553), and inverting R costs as much as factoring H.
    """

    triangles: Float32
    order: npt.NDArray[np.intp]
    importance: Float32
    damping: float


def gptq_factor(hessian: Array, damping: float = 0.01, threads: int = 1) -> GptqFactor:
    """Factor a Hessian [K, K] of float32 or float64, the sum (or mean) of x x^T over tokens.

    `damping` is the share of the diagonal's mean that is added to the diagonal; it is raised tenfold until the matrix
    is positive definite in float64. Columns that no token has used (zeros) are fine. The function holds K^2 values in
    float64 beside the Hessian and returns K^2 values in float32. `threads` threads share the work; the result does not
    depend on their number, provided that numpy itself uses one thread.

    Raises ValueError for a Hessian that is not square, not finite, or has a negative diagonal.
    """
    diagonal = _check_hessian(hessian, damping)
    mean = float(diagonal.mean()) or 1.0
    order = np.argsort(-diagonal, kind="stable")
    damping = damping if diagonal.any() else 1.0
    with ThreadPoolExecutor(threads) as pool:
        while True:
            work = _arrange(hessian, order, mean, damping)
            try:
                _upper_cholesky(work, pool)
                break
            except np.linalg.LinAlgError:
                damping *= 10
    importance = np.empty(len(work), np.float32)
    importance[order] = np.diagonal(work) ** 2.0
    triangles = work.astype(np.float32)
    _mirror(triangles)
    for tile in _tiles(len(work)):
        corner = np.triu(np.linalg.inv(work[tile, tile]))
        triangles[: tile.start, tile] = work[: tile.start, tile] @ corner
        triangles[tile, tile] = corner + np.tril(triangles[tile, tile], -1)
    return GptqFactor(triangles, order, importance, damping)


def gptq_rows(rows: Array, factor: GptqFactor, scheme: Scheme, scales_dtype: npt.DTypeLike = np.float32) -> Quantized:
    """Quantize rows [n, K] by GPTQ, in the layout of `scheme`; dtypes as in `quantize_rows`.

    `scheme.method` is ignored. Scales and zero points come from the error search, weighted by `factor.importance`. A
    row whose loss would be larger than with round-to-nearest under the same scheme is rounded to nearest.

    Rows are independent: several threads may each quantize a range of rows, with few threads of numpy's own. The GIL
    is released in the kernel and in numpy's products. Working memory is some 20 bytes for each value of 256 rows.
    """
    n, k = rows.shape
    if factor.order.shape != (k,):
        raise ValueError(f"the Hessian has {len(factor.order)} columns, the rows have {k}")
    parts = []
    for start in range(0, max(n, 1), _ROWS_AT_ONCE):
        try:
            parts.append(_quantize(rows[start : start + _ROWS_AT_ONCE], factor, scheme, scales_dtype))
        except NonFiniteError as error:
            raise NonFiniteError(start + error.row, error.column) from None
    if len(parts) == 1:
        return parts[0]
    packed, scales, zero_points, units = (
        None if each[0] is None else np.concatenate(each) for each in zip(*parts, strict=True)
    )
    assert packed is not None and scales is not None
    return Quantized(packed, scales, zero_points, units)


def _quantize(rows: Array, factor: GptqFactor, scheme: Scheme, scales_dtype: npt.DTypeLike) -> Quantized:
    """GPTQ for rows that are few enough for several float32 copies of them."""
    plain = quantize_rows(rows, replace(scheme, method="rtn"), scales_dtype)
    found = quantize_rows(rows, replace(scheme, method="search"), scales_dtype, importance=factor.importance)
    if not len(rows):
        return found
    values = as_float32(rows)
    with np.errstate(all="ignore"):  # rows near the ends of float32 fall back to round-to-nearest
        loss, squares = _fit(values, factor, scheme, found)
        plain_error = values - dequantize_rows(plain, scheme, rows.shape[1])
        allowed = factor.damping * (_squares(plain_error.T) - squares)
        worse = ~_within(loss * (1 + _MARGIN) + allowed, plain_error, factor)
    for ours, theirs in zip(found, plain, strict=True):
        if ours is not None and theirs is not None:
            ours[worse] = theirs[worse]
    return found


def _fit(values: Float32, factor: GptqFactor, scheme: Scheme, found: Quantized) -> tuple[Float64, Float64]:
    """Fill in the levels of `found` for its scales and zero points; returns the damped loss of each row, and |W - Q|^2.

    With R R^T = H', the loss |(W - Q) R|^2 is the sum of squares of the errors as they are fed back.
    """
    n, k = values.shape
    blocks, q_max = scheme.blocks(k), (1 << scheme.bits) - 1
    scales = np.ascontiguousarray(found.float_scales.T)
    if found.zero_points is None:
        zeros = np.full_like(scales, 1 << (scheme.bits - 1))
    else:
        zeros = np.ascontiguousarray(unpack_zero_points(found.zero_points, scheme.bits, blocks).T.astype(np.float32))
    of_blocks = (scales, reciprocal(scales), zeros)
    groups = factor.order // scheme.block_size
    round_columns = _column_kernel()
    columns = values.T[factor.order]
    errors = np.empty_like(columns)
    levels = np.empty((k, n), np.uint8)
    loss = np.zeros(n)
    for tile in _tiles(k):
        owed = factor.triangles[: tile.start, tile].T @ errors[: tile.start]
        shares = factor.triangles[tile, tile]
        levels[tile], fed_back = round_columns(columns[tile], owed, shares, groups[tile], of_blocks, q_max)
        _put_errors(columns[tile], levels[tile], groups[tile], of_blocks, errors[tile])
        loss += _squares(fed_back)
    padded = np.zeros((n, blocks * scheme.block_size), np.uint8)
    padded[:, factor.order] = levels.T
    found.packed.reshape(n, -1)[...] = pack_levels(padded, scheme.bits)
    return loss, _squares(errors)


def _put_errors(
    columns: Float32,
    levels: npt.NDArray[np.uint8],
    groups: npt.NDArray[np.intp],
    of_blocks: tuple[Float32, ...],
    errors: Float32,
) -> None:
    """Write W - Q of some columns [width, n]; see `_round_columns`."""
    scales, _, zeros = of_blocks
    np.subtract(levels, zeros[groups], out=errors)
    errors *= scales[groups]
    np.subtract(columns, errors, out=errors)


def _round_columns(
    columns: Float32,
    owed: Float32,
    shares: Float32,
    groups: npt.NDArray[np.intp],
    of_blocks: tuple[Float32, ...],
    q_max: int,
) -> tuple[npt.NDArray[np.uint8], Float32]:
    """Levels of columns [width, n], and their errors divided by the factor's diagonal; the kernel's numpy twin.

    `owed` [width, n] is what the columns have to make up for. It is kept apart from the columns, because adding a small
    correction to a large weight would lose the correction, and the loss computed from the errors would be wrong.
    `shares` [width, width] has the factor's rows and columns in its upper triangle; `of_blocks` are scales, their
    reciprocals and zero points [blocks, n], `groups` [width] says which block each column belongs to.
    """
    owed = owed.copy()
    levels = np.empty(columns.shape, np.uint8)
    errors = np.empty_like(columns)
    for j, group in enumerate(groups):
        scale, rate, zero = (of[group] for of in of_blocks)
        level = (columns[j] + owed[j]) * rate + zero + ALMOST_HALF
        level = np.minimum(np.where(level > 0, level, np.float32(0)), np.float32(q_max)).astype(np.uint8)
        levels[j] = level
        error = columns[j] - (level.astype(np.float32) - zero) * scale + owed[j]
        errors[j] = error * (np.float32(1) / shares[j, j])
        owed[j + 1 :] -= errors[j] * shares[j, j + 1 :, None]
    return levels, errors


def _column_kernel() -> Callable[..., tuple[npt.NDArray[np.uint8], Float32]]:
    """The compiled kernel where there is one, or else `_round_columns`, its twin."""
    if backend() != "numba":
        return _round_columns
    from drupe_blockquant import kernel_calls

    return kernel_calls.gptq_columns


def _within(limit: Float64, error: Float32, factor: GptqFactor) -> npt.NDArray[np.bool_]:
    """Where |error R|^2, the damped loss of errors [n, K], is at least `limit`.

    Each tile of columns adds to the sum, so the product may end as soon as every row has reached its limit. The last
    tiles add most: nothing that follows makes up for their errors.
    """
    columns = error.T[factor.order]
    loss = np.zeros(len(error))
    for tile in reversed(_tiles(len(columns))):
        corner = factor.triangles[tile, tile]
        roots = np.tril(corner, -1) + np.diag(np.float32(1) / np.diagonal(corner))
        product = factor.triangles[tile, : tile.start] @ columns[: tile.start] + roots @ columns[tile]
        loss += _squares(product)
        if (loss >= limit).all():
            break
    return np.isfinite(limit) & (loss >= limit)


def _squares(columns: Float32) -> Float64:
    """Sums of squares over the first axis of [width, n], in float64, where no float32 overflows or vanishes."""
    result: Float64 = np.einsum("jn,jn->n", columns, columns, dtype=np.float64)
    return result


# The factorization works in place, by tiles: it holds one matrix of float64.


def _check_hessian(hessian: Array, damping: float) -> Float64:
    if hessian.ndim != 2 or hessian.shape[0] != hessian.shape[1] or not hessian.size:
        raise ValueError(f"a Hessian must be a square matrix, not of shape {hessian.shape}")
    if not damping > 0:
        raise ValueError(f"damping must be positive, not {damping!r}")
    if not all(np.isfinite(hessian[tile]).all() for tile in _tiles(len(hessian))):
        raise ValueError("the Hessian holds NaN or infinities")
    diagonal = np.diagonal(hessian).astype(np.float64)
    if (diagonal < 0).any():
        raise ValueError("the Hessian has a negative diagonal, so it is not a sum of x x^T")
    return diagonal


def _arrange(hessian: Array, order: npt.NDArray[np.intp], mean: float, damping: float) -> Float64:
    """The damped Hessian in the order of processing, in units of its mean diagonal."""
    work = np.empty(hessian.shape, np.float64)
    for tile in _tiles(len(order)):
        np.divide(hessian[order[tile]][:, order], mean, out=work[tile])
    work[np.diag_indices_from(work)] += damping
    return work


def _tiles(k: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, k)) for start in range(0, k, _BLOCK)]


def _upper_cholesky(work: Float64, pool: Executor) -> None:
    """Replace the upper triangle of a positive definite matrix A by R, with A = R R^T; the rest of A is not read."""
    for tile in reversed(_tiles(len(work))):
        corner = np.linalg.cholesky(work[tile, tile][::-1, ::-1])[::-1, ::-1]
        work[tile, tile] = corner
        panel = work[: tile.start, tile] @ np.linalg.inv(corner).T
        work[: tile.start, tile] = panel
        _all(pool.map(partial(_subtract_square, work, panel), _tiles(tile.start)))


def _subtract_square(work: Float64, panel: Float64, rows: slice) -> None:
    """Subtract panel panel^T from some rows of the upper triangle, over the panel's columns."""
    work[rows, rows.start : len(panel)] -= panel[rows] @ panel[rows.start :].T


def _all(done: Iterable[None]) -> None:
    """Wait for tasks that run in parallel, and raise the first of their errors."""
    deque(done, maxlen=0)


def _mirror(matrix: Float32) -> None:
    """Copy the upper triangle to the lower one."""
    for tile in _tiles(len(matrix)):
        corner = np.triu(matrix[tile, tile])
        matrix[tile, tile] = corner + np.triu(corner, 1).T
        matrix[tile.stop :, tile] = matrix[tile, tile.stop :].T
