"""Two-level scales: whole multiples of a unit of each row, almost as exact as floats, in a quarter of the bytes."""

import ml_dtypes
import numpy as np
import pytest
from blockquant_cases import block_errors, both_backends, odd_rows, random_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from drupe_blockquant import Scheme, dequantize_rows, gptq_factor, gptq_rows, quantize_rows

SHAPES = [(64, 896, 32), (20, 576, 128), (3, 37, 16), (1, 1, 16), (9, 300, 256), (5, 4864, 16)]
METHODS = ["rtn", "search", "hqq"]


def two_levels(bits=4, block_size=32, method="search"):
    return Scheme(bits, block_size, False, method, two_level=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_two_level_scales_lose_little_against_float_scales(backend, bits, method):
    for n, k, block_size in SHAPES[:2]:
        rows = random_rows(n, k, "bfloat16", seed=n)
        coarse, fine = two_levels(bits, block_size, method), Scheme(bits, block_size, False, method)
        found, floats = (block_errors(rows, quantize_rows(rows, each), each).sum() for each in (coarse, fine))
        assert found < {2: 1.002, 4: 1.005, 8: 1.1}[bits] * floats


def test_the_unit_of_a_row_follows_its_largest_scale(backend):
    for n, k, block_size in SHAPES:
        found = quantize_rows(random_rows(n, k), two_levels(4, block_size))
        assert found.scales.dtype == np.uint8 and found.units.dtype == ml_dtypes.bfloat16
        assert found.units.shape == (n, 1)
        assert (found.scales.max(1) >= 252).all() and (found.scales >= 1).all()


def test_the_arrays_have_the_bytes_that_the_scheme_counts(backend):
    for n, k, block_size in SHAPES:
        scheme = two_levels(4, block_size)
        found = quantize_rows(random_rows(n, k), scheme)
        assert sum(part.nbytes for part in found) == scheme.bytes_for(n, k, 4)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, "bfloat16"], ids=str)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_numba_and_numpy_round_alike(monkeypatch, bits, dtype, weighted):
    for n, k, block_size in SHAPES:
        rows = random_rows(n, k, dtype)
        scheme = two_levels(bits, block_size, "rtn")
        for ours, twins in zip(*both_backends(monkeypatch, rows, scheme), strict=True):
            np.testing.assert_array_equal(ours, twins)
        importance = np.random.default_rng(1).uniform(0.1, 2, k).astype(np.float32) if weighted else None
        scheme = two_levels(bits, block_size)
        results = both_backends(monkeypatch, rows, scheme, importance=importance)
        errors = [block_errors(rows, result, scheme, importance).sum() for result in results]
        assert errors[0] == pytest.approx(errors[1], rel=1e-2)


@settings(max_examples=100, deadline=None)
@given(odd_rows(), st.sampled_from([2, 4, 8]), st.sampled_from([16, 32, 64]), st.sampled_from(METHODS))
def test_odd_rows_stay_within_their_own_range(rows, bits, block_size, method):
    for name in ("numba", "numpy"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DRUPE_BLOCKQUANT", name)
            scheme = two_levels(bits, block_size, method)
            found = quantize_rows(rows, scheme)
            values = dequantize_rows(found, scheme, rows.shape[1])
            assert np.isfinite(found.float_scales).all()
            peak = np.abs(rows).max()
            if peak < 1e38:
                assert np.abs(values - rows).max() <= peak * 1.02 + 1e-34
            assert not values[~rows.any(axis=1)].any()


@settings(max_examples=50, deadline=None)
@given(odd_rows(), st.sampled_from([2, 4]), st.sampled_from([16, 32]))
def test_gptq_is_no_worse_than_round_to_nearest(rows, bits, block_size):
    k = rows.shape[1]
    inputs = np.random.default_rng(k).standard_normal((2 * k, k)) * np.linspace(1, 0.1, k)
    hessian, scheme = inputs.T @ inputs, two_levels(bits, block_size)
    if np.abs(rows).max() > 1e15:
        return

    def loss(found):
        error = rows.astype(np.float64) - dequantize_rows(found, scheme, k)
        return np.einsum("nk,kj,nj->n", error, hessian, error)

    plain = loss(quantize_rows(rows, two_levels(bits, block_size, "rtn")))
    assert (loss(gptq_rows(rows, gptq_factor(hessian), scheme)) <= plain * (1 + 1e-4) + 1e-60).all()


def test_ranges_of_rows_give_the_same_results_as_all_rows(backend):
    rows, scheme = random_rows(300, 96), two_levels()
    whole, part = quantize_rows(rows, scheme), quantize_rows(rows[77:200], scheme)
    for all_rows, some in zip(whole, part, strict=True):
        np.testing.assert_array_equal(all_rows[77:200], some)


def test_a_symmetric_scheme_with_two_level_scales_is_refused():
    with pytest.raises(ValueError, match="negative"):
        Scheme(4, 32, True, two_level=True)
