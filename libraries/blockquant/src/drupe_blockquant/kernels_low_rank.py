"""The inner loop of merging an adapter, compiled by numba: rows + left x right, rounded to the type of the rows.

It works on a few columns of all rows at a time, so that their part of `right` stays in the first-level cache.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc,attr-defined"

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, njit

from drupe_blockquant.kernel_calls import PRODUCT_COLUMNS as COLUMNS
from drupe_blockquant.kernel_calls import PRODUCT_ROWS as ROWS

F32 = np.float32
U32 = np.uint32

_inner: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # as `kernels`
_strict = njit(**_inner)
_contracted = njit(fastmath={"contract"}, **_inner)


@_contracted
def _add(sums, left, right, row, start, end):
    """sums += left[row] x right[:, start:end]; four of the inner products at a time save loads and stores."""
    ranks = left.shape[1]
    whole = ranks // 4 * 4
    for i in range(0, whole, 4):
        a, b, c, d = left[row, i], left[row, i + 1], left[row, i + 2], left[row, i + 3]
        first, second = right[i, start:end], right[i + 1, start:end]
        third, fourth = right[i + 2, start:end], right[i + 3, start:end]
        for j in range(end - start):
            sums[j] = sums[j] + first[j] * a + second[j] * b + third[j] * c + fourth[j] * d
    for i in range(whole, ranks):
        a = left[row, i]
        first = right[i, start:end]
        for j in range(end - start):
            sums[j] = sums[j] + first[j] * a


@_contracted
def _add_to_rows(sums, left, right, row, start, end):
    """The same for ROWS rows, which share what is loaded of `right`. sums: [ROWS, COLUMNS]."""
    ranks = left.shape[1]
    whole = ranks // 4 * 4
    one, two, three, four = sums[0], sums[1], sums[2], sums[3]
    for i in range(0, whole, 4):
        a, b, c, d = left[row, i], left[row, i + 1], left[row, i + 2], left[row, i + 3]
        e, f, g, h = left[row + 1, i], left[row + 1, i + 1], left[row + 1, i + 2], left[row + 1, i + 3]
        k, m, n, o = left[row + 2, i], left[row + 2, i + 1], left[row + 2, i + 2], left[row + 2, i + 3]
        p, q, r, s = left[row + 3, i], left[row + 3, i + 1], left[row + 3, i + 2], left[row + 3, i + 3]
        first, second = right[i, start:end], right[i + 1, start:end]
        third, fourth = right[i + 2, start:end], right[i + 3, start:end]
        for j in range(end - start):
            w, x, y, z = first[j], second[j], third[j], fourth[j]
            one[j] = one[j] + w * a + x * b + y * c + z * d
            two[j] = two[j] + w * e + x * f + y * g + z * h
            three[j] = three[j] + w * k + x * m + y * n + z * o
            four[j] = four[j] + w * p + x * q + y * r + z * s
    for i in range(whole, ranks):
        a, b, c, d = left[row, i], left[row + 1, i], left[row + 2, i], left[row + 3, i]
        first = right[i, start:end]
        for j in range(end - start):
            one[j] = one[j] + first[j] * a
            two[j] = two[j] + first[j] * b
            three[j] = three[j] + first[j] * c
            four[j] = four[j] + first[j] * d


@_strict
def _widen(held, patterns, size):
    """bfloat16 as the bit patterns of float32."""
    for j in range(size):
        patterns[j] = U32(held[j]) << U32(16)


@_strict
def _narrow(patterns, made, size):
    """Bit patterns of float32 rounded to bfloat16, to nearest, ties to even."""
    for j in range(size):
        bits = patterns[j]
        made[j] = np.uint16((bits + U32(0x7FFF) + ((bits >> U32(16)) & U32(1))) >> U32(16))


@_strict
def _add_to_bfloat16(rows, left, right, patterns, sums, out):
    n, k = rows.shape
    together = n // ROWS * ROWS
    for start in range(0, k, COLUMNS):
        end = start + COLUMNS if start + COLUMNS < k else k
        for row in range(0, together, ROWS):
            for at in range(ROWS):
                _widen(rows[row + at, start:end], patterns[at], end - start)
            _add_to_rows(sums, left, right, row, start, end)
            for at in range(ROWS):
                _narrow(patterns[at], out[row + at, start:end], end - start)
        for row in range(together, n):
            _widen(rows[row, start:end], patterns[0], end - start)
            _add(sums[0], left, right, row, start, end)
            _narrow(patterns[0], out[row, start:end], end - start)


@_strict
def _add_to_float32(rows, left, right, out):
    n, k = rows.shape
    for start in range(0, k, COLUMNS):
        end = start + COLUMNS if start + COLUMNS < k else k
        for row in range(n):
            held = rows[row, start:end]
            made = out[row, start:end]
            for j in range(end - start):
                made[j] = held[j]
            _add(made, left, right, row, start, end)


def _add_product_16(rows, left, right, sums, out, n, k, ranks):
    _add_to_bfloat16(
        carray(rows, (n, k), np.uint16), carray(left, (n, ranks), np.float32), carray(right, (ranks, k), np.float32),
        carray(sums, (ROWS, COLUMNS), np.uint32), carray(sums, (ROWS, COLUMNS), np.float32),
        carray(out, (n, k), np.uint16),
    )  # fmt: skip
    return 0


def _add_product_32(rows, left, right, out, n, k, ranks):
    _add_to_float32(
        carray(rows, (n, k), np.float32), carray(left, (n, ranks), np.float32),
        carray(right, (ranks, k), np.float32), carray(out, (n, k), np.float32),
    )  # fmt: skip
    return 0


ENTRY_POINTS: dict[str, Callable[..., int]] = {
    "add_product_16": _add_product_16,
    "add_product_32": _add_product_32,
}
