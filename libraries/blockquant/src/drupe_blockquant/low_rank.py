"""Adding a product of two narrow matrices to rows of weights, which is what merging an adapter is."""

import ml_dtypes
import numpy as np
import numpy.typing as npt

from drupe_blockquant.layout import Array
from drupe_blockquant.quantize import backend

Float32 = npt.NDArray[np.float32]
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_TAKEN = (np.dtype(np.float32), _BFLOAT16)


def add_product(rows: Array, left: Float32, right: Float32, out: Array) -> None:
    """out = rows + left x right, computed in float32 and rounded once, to nearest, ties to even.

    rows, out: [n, K] of one type, float32, float16 or bfloat16, C-contiguous, which do not overlap. left: [n, r];
    right: [r, K].
    """
    if backend() == "numba" and rows.dtype in _TAKEN:
        from drupe_blockquant import kernel_calls

        if len(rows) >= kernel_calls.PRODUCT_ROWS and rows.shape[1] >= kernel_calls.PRODUCT_COLUMNS:
            kernel_calls.add_product(rows, np.ascontiguousarray(left), np.ascontiguousarray(right), out)
            return
    add_product_in_numpy(rows, left, right, out)


def add_product_in_numpy(rows: Array, left: Float32, right: Float32, out: Array) -> None:
    """The twin of the compiled kernel; a few rows at a time, so that they stay in the cache."""
    step = max(1, (256 << 10) // (4 * rows.shape[1]))
    for start in range(0, len(rows), step):
        here = slice(start, start + step)
        out[here] = (rows[here].astype(np.float32) + left[here] @ right).astype(out.dtype)
