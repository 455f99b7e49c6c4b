"""What the tests share: random rows, errors by block, and both backends' results."""

import ml_dtypes
import numpy as np
import pytest

from drupe_blockquant import dequantize_rows, quantize_rows


def random_rows(n, k, dtype=np.float32, seed=0):
    rows = (np.random.default_rng(seed).standard_t(6, (n, k)) * 0.02).astype(np.float32)
    return rows.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def block_errors(rows, quantized, scheme, importance=None):
    """Squared error of each block [n, blocks], in float64."""
    n, k = rows.shape
    error = dequantize_rows(*quantized, scheme, k).astype(np.float64) - rows.astype(np.float64)
    error = error**2 if importance is None else error**2 * importance
    padded = np.zeros((n, scheme.blocks(k) * scheme.block_size))
    padded[:, :k] = error
    return padded.reshape(n, scheme.blocks(k), scheme.block_size).sum(-1)


def both_backends(monkeypatch, *args, **options):
    pytest.importorskip("numba")
    results = []
    for name in ("numba", "numpy"):
        monkeypatch.setenv("DRUPE_BLOCKQUANT", name)
        results.append(quantize_rows(*args, **options))
    return results
