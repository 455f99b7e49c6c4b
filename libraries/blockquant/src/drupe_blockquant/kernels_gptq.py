"""The inner loop of GPTQ, compiled by numba: round columns one after the other, each corrected for the errors so far.

Columns are stored as rows here, so a vector holds one column of several rows of the matrix. The arithmetic is strict
IEEE, in the order of the numpy twin in `gptq`: the two agree to the bit.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc,attr-defined"

from collections.abc import Callable

import numpy as np
from numba import carray

from drupe_blockquant.kernels_common import ALMOST_HALF, F32, ZERO, strict

LANES = 64  # rows of the matrix taken at a time: the errors of 128 columns of them stay in the first-level cache


@strict
def _correct(owed, errors, shares, count, start, end):
    """owed -= errors^T shares over the first `count` errors, in their order; four at a time save loads and stores."""
    whole = count // 4 * 4
    # `errors` is indexed by row and range: a view would have strides that LLVM does not know.
    for i in range(0, whole, 4):
        a, b, c, d = shares[i], shares[i + 1], shares[i + 2], shares[i + 3]
        first, second = errors[i, start:end], errors[i + 1, start:end]
        third, fourth = errors[i + 2, start:end], errors[i + 3, start:end]
        for r in range(owed.size):
            value = owed[r] - first[r] * a
            value = value - second[r] * b
            value = value - third[r] * c
            owed[r] = value - fourth[r] * d
    for i in range(whole, count):
        error = errors[i, start:end]
        share = shares[i]
        for r in range(owed.size):
            owed[r] = owed[r] - error[r] * share


@strict
def _round_column(column, owed, scale, reciprocal, zero, root, q_max, level, error):
    """Levels of a column, and its errors divided by the factor's diagonal element. `root` is that element's inverse."""
    for r in range(column.size):
        rounded = (column[r] + owed[r]) * reciprocal[r] + zero[r] + ALMOST_HALF
        rounded = rounded if rounded > ZERO else ZERO
        rounded = rounded if rounded < q_max else q_max
        whole = np.int32(rounded)
        level[r] = np.uint8(whole)
        error[r] = (column[r] - (F32(whole) - zero[r]) * scale[r] + owed[r]) * root


@strict
def _round_columns(columns, owed, shares, roots, scales, reciprocals, zeros, groups, levels, errors, q_max):
    width, n = columns.shape
    for start in range(0, n, LANES):
        end = start + LANES if start + LANES < n else n
        here = slice(start, end)
        for j in range(width):
            g = groups[j]
            _correct(owed[j, here], errors, shares[j], j, start, end)
            _round_column(
                columns[j, here], owed[j, here], scales[g, here], reciprocals[g, here], zeros[g, here],
                roots[j], q_max, levels[j, here], errors[j, here],
            )  # fmt: skip


def _gptq_columns(
    columns, owed, shares, roots, scales, reciprocals, zeros, groups, levels, errors,
    width, n, blocks, q_max,
):  # fmt: skip
    _round_columns(
        carray(columns, (width, n), np.float32), carray(owed, (width, n), np.float32),
        carray(shares, (width, width), np.float32), carray(roots, (width,), np.float32),
        carray(scales, (blocks, n), np.float32), carray(reciprocals, (blocks, n), np.float32),
        carray(zeros, (blocks, n), np.float32),
        carray(groups, (width,), np.int64), carray(levels, (width, n), np.uint8),
        carray(errors, (width, n), np.float32), F32(q_max),
    )  # fmt: skip
    return 0


ENTRY_POINTS: dict[str, Callable[..., int]] = {"gptq_columns": _gptq_columns}
