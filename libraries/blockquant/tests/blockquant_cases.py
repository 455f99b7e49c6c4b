"""Helpers that the tests share: random rows, rows with extreme values, errors by block, results of both backends."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from drupe_blockquant import dequantize_rows, quantize_rows


def random_rows(n, k, dtype=np.float32, seed=0):
    rows = (np.random.default_rng(seed).standard_t(6, (n, k)) * 0.02).astype(np.float32)
    return rows.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def block_errors(rows, quantized, scheme, importance=None):
    """Squared error of each block [n, blocks], in float64."""
    n, k = rows.shape
    error = dequantize_rows(quantized, scheme, k).astype(np.float64) - rows.astype(np.float64)
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


SPECIALS = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-40, 1.2e-38, 1e-20, 3e4, -6e4, 1e20, -3e38, 0.02, -0.02, 1e-3]


@st.composite
def odd_rows(draw):
    n = draw(st.integers(1, 4))
    k = draw(st.integers(1, 70))
    kind = draw(st.sampled_from(["normal", "constant", "zero", "outlier", "denormal", "special"]))
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    if kind == "constant":
        return np.full((n, k), draw(st.sampled_from(SPECIALS)), np.float32)
    if kind == "zero":
        return np.zeros((n, k), np.float32)
    if kind == "special":
        return generator.choice(np.array(SPECIALS, np.float32), (n, k))
    rows = generator.normal(0, 1e-41 if kind == "denormal" else 0.02, (n, k)).astype(np.float32)
    if kind == "outlier":
        rows[draw(st.integers(0, n - 1)), draw(st.integers(0, k - 1))] = draw(st.sampled_from([-50.0, 50.0, 1e10]))
    return rows
