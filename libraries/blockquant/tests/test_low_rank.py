"""Adding a product of narrow matrices: the compiled kernel and its twin in numpy."""

import ml_dtypes
import numpy as np
import pytest

from drupe_blockquant import add_product
from drupe_blockquant.low_rank import add_product_in_numpy


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    ("n", "k", "ranks"), [(1, 1, 1), (5, 300, 6), (6, 32, 1), (13, 300, 6), (12, 256, 16), (7, 513, 19)]
)
def test_the_kernel_adds_what_its_twin_adds(dtype: type, n: int, k: int, ranks: int) -> None:
    random = np.random.default_rng(n)
    rows = random.normal(size=(n, k)).astype(dtype)
    left, right = random.normal(size=(n, ranks)).astype(np.float32), random.normal(size=(ranks, k)).astype(np.float32)
    exact = rows.astype(np.float64) + left.astype(np.float64) @ right.astype(np.float64)
    for add in (add_product, add_product_in_numpy):
        out = np.empty_like(rows)
        add(rows, left, right, out)
        step = np.finfo(np.float32).eps if dtype is np.float32 else ml_dtypes.finfo(dtype).eps
        limit = 0.51 * float(step) * np.abs(exact) + 1e-5
        assert (np.abs(out.astype(np.float64) - exact) <= limit).all()
