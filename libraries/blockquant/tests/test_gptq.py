"""GPTQ: same levels as the paper's steps, smaller loss than the weighted search, never worse than round-to-nearest."""

from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from blockquant_cases import odd_rows, random_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from drupe_blockquant import (
    NonFiniteError,
    Scheme,
    dequantize_rows,
    gptq,
    gptq_factor,
    gptq_rows,
    kernel_calls,
    quantize_rows,
    unpack_levels,
    unpack_zero_points,
)


def correlated_inputs(tokens, k, seed=0):
    generator = np.random.default_rng(seed)
    directions = generator.standard_normal((k, k)) * np.linspace(1, 0.05, k)
    return generator.standard_normal((tokens, k)) @ directions.T * generator.uniform(0.2, 2, k)


def hessian_of(inputs):
    return inputs.T @ inputs


def losses(rows, quantized, scheme, hessian):
    """(w - q) H (w - q)^T of each row, in float64."""
    error = rows.astype(np.float64) - dequantize_rows(quantized, scheme, rows.shape[1])
    return np.einsum("nj,jk,nk->n", error, hessian.astype(np.float64), error, optimize=True)


def by_the_paper(rows, quantized, scheme, hessian, damping, order):
    """Levels by equations (2) and (3) of the paper: one weight after the other, the inverse Hessian updated for each.

    Slow and simple: it shares only scales, zero points and the order of columns with the implementation.
    """
    n, k = rows.shape
    damped = hessian / np.diagonal(hessian).mean() + damping * np.eye(k)
    levels = np.zeros((n, k), int)
    for i in range(n):
        row, inverse = rows[i].astype(np.float64), np.linalg.inv(damped)
        for q in order:
            block = q // scheme.block_size
            scale = float(quantized.scales[i, block])
            zero = 1 << (scheme.bits - 1)
            if quantized.zero_points is not None:
                zero = int(unpack_zero_points(quantized.zero_points, scheme.bits, scheme.blocks(k))[i, block])
            level = int(np.clip(np.floor(row[q] / scale + zero + 0.5), 0, (1 << scheme.bits) - 1))
            levels[i, q] = level
            row = row - (row[q] - (level - zero) * scale) / inverse[q, q] * inverse[q]
            inverse = inverse - np.outer(inverse[:, q], inverse[q]) / inverse[q, q]
            inverse[q, q] = 1.0  # this weight is done and never read again; 1 avoids a division by zero
    return levels


@pytest.mark.parametrize(("bits", "symmetric"), [(4, True), (4, False), (2, False), (8, False)])
def test_levels_equal_those_of_the_papers_steps(backend, bits, symmetric):
    for n, k, block_size in ((4, 150, 32), (3, 40, 16), (5, 1, 16)):
        rows, hessian = random_rows(n, k, seed=k), hessian_of(correlated_inputs(4 * k + 8, k))
        scheme = Scheme(bits, block_size, symmetric)
        factor = gptq_factor(hessian)
        found = start(rows, scheme, factor)
        gptq._fit(rows, factor, scheme, found)  # without falling back to round-to-nearest
        levels = unpack_levels(found.packed, bits).reshape(n, -1)[:, :k]
        wanted = by_the_paper(rows, found, scheme, hessian, factor.damping, factor.order)
        assert (levels == wanted).mean() > 0.99


def start(rows, scheme, factor):
    search = Scheme(scheme.bits, scheme.block_size, scheme.symmetric, "search")
    return quantize_rows(rows, search, importance=factor.importance)


def test_the_returned_loss_is_the_weighted_error(backend):
    rows, hessian = random_rows(20, 200), hessian_of(correlated_inputs(500, 200))
    scheme, factor = Scheme(4, 32, False), gptq_factor(hessian)
    found = start(rows, scheme, factor)
    loss, squares = gptq._fit(rows, factor, scheme, found)
    damped = hessian / np.diagonal(hessian).mean() + factor.damping * np.eye(200)
    np.testing.assert_allclose(loss, losses(rows, found, scheme, damped), rtol=1e-3)
    np.testing.assert_allclose(squares, losses(rows, found, scheme, np.eye(200)), rtol=1e-4)


@pytest.mark.parametrize("tokens", [2000, 100])
@pytest.mark.parametrize("block_size", [32, 128])
@pytest.mark.parametrize("symmetric", [True, False])
def test_with_correlated_inputs_gptq_loses_much_less_than_the_weighted_search(backend, symmetric, block_size, tokens):
    inputs = correlated_inputs(tokens, 384)
    rows, hessian = random_rows(100, 384), hessian_of(inputs)
    search = Scheme(4, block_size, symmetric, "search")
    searched = quantize_rows(rows, search, importance=np.diagonal(hessian).astype(np.float32))
    ours = gptq_rows(rows, gptq_factor(hessian), search)
    assert losses(rows, ours, search, hessian).sum() < 0.7 * losses(rows, searched, search, hessian).sum()


@pytest.mark.parametrize("k", [1, 2, 127, 128, 129, 300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_factor_holds_the_root_of_the_hessian_and_what_errors_are_carried_over_by(k, dtype):
    hessian = hessian_of(correlated_inputs(2 * k, k)).astype(dtype)
    factor = gptq_factor(hessian)
    held = np.triu(factor.triangles).astype(np.float64)
    root = np.tril(factor.triangles, -1).T.astype(np.float64) + np.diag(1 / np.diagonal(held))
    damped = hessian / np.diagonal(hessian).mean() + factor.damping * np.eye(k)
    np.testing.assert_allclose(root @ root.T, damped[factor.order][:, factor.order], atol=1e-5 * damped.max())
    inverse = np.linalg.inv(root)
    for tile in (slice(start, start + 128) for start in range(0, k, 128)):
        corner = inverse[tile, tile]
        np.testing.assert_allclose(held[tile, tile], corner, atol=1e-4 * np.abs(corner).max())
        panel = root[: tile.start, tile] @ corner
        np.testing.assert_allclose(held[: tile.start, tile], panel, atol=1e-4)


def test_columns_without_input_are_rounded_and_do_not_worsen_the_others(backend):
    rows, inputs = random_rows(8, 96), correlated_inputs(300, 96)
    inputs[:, ::5] = 0
    inputs[:, 32:64] = 0  # a whole block
    scheme, hessian = Scheme(4, 32, False), hessian_of(inputs)
    ours = gptq_rows(rows, gptq_factor(hessian), scheme)
    values = dequantize_rows(ours, scheme, 96)
    steps = np.repeat(ours.scales, 32, 1)
    dead = np.diagonal(hessian) == 0
    inside = np.abs(values - rows) < 0.51 * np.abs(steps)
    assert inside[:, dead].mean() > 0.95  # the search may clip a few values
    assert (losses(rows, ours, scheme, hessian) < losses(rows, quantize_rows(rows, scheme), scheme, hessian)).all()


def test_a_hessian_of_zeros_gives_plain_rounding(backend):
    rows, scheme = random_rows(8, 96), Scheme(4, 32, False)
    ours = gptq_rows(rows, gptq_factor(np.zeros((96, 96))), scheme)
    assert np.abs(dequantize_rows(ours, scheme, 96) - rows).max() < np.abs(ours.scales.astype(np.float32)).max()


def test_the_scale_of_the_hessian_does_not_matter(backend):
    rows, hessian = random_rows(8, 96), hessian_of(correlated_inputs(300, 96))
    scheme = Scheme(4, 32, False)
    one, other = (gptq_rows(rows, gptq_factor(hessian * factor), scheme) for factor in (2.0**-60, 2.0**60))
    np.testing.assert_array_equal(one.packed, other.packed)


def test_a_hessian_that_is_not_positive_definite_is_damped_more():
    hessian = hessian_of(correlated_inputs(300, 64))
    hessian[0, 1] = hessian[1, 0] = 1.5 * np.sqrt(hessian[0, 0] * hessian[1, 1])
    assert gptq_factor(hessian).damping > 0.01


@pytest.mark.parametrize("dtype", [np.float32, np.float16, "bfloat16"], ids=str)
def test_row_ranges_in_threads_give_about_the_same_loss_as_all_rows_at_once(dtype):
    pytest.importorskip("numba")
    rows, hessian = random_rows(600, 200, dtype), hessian_of(correlated_inputs(400, 200))
    scheme, factor = Scheme(4, 32, False), gptq_factor(hessian)
    whole = gptq_rows(rows, factor, scheme, np.float16)
    with ThreadPoolExecutor(2) as pool:
        parts = list(
            pool.map(lambda r: gptq_rows(rows[r], factor, scheme, np.float16), (slice(0, 301), slice(301, 600)))
        )
    together = type(whole)(*(np.concatenate(same) for same in zip(*parts, strict=True) if same[0] is not None))
    assert whole.scales.dtype == np.float16
    np.testing.assert_array_equal(whole.scales, together.scales)
    ours, theirs = (losses(rows.astype(np.float32), q, scheme, hessian).sum() for q in (whole, together))
    assert ours == pytest.approx(theirs, rel=1e-2)


def test_bit_patterns_and_bfloat16_are_the_same_rows(backend):
    rows, factor = random_rows(5, 70, "bfloat16"), gptq_factor(hessian_of(correlated_inputs(100, 70)))
    for a, b in zip(*(gptq_rows(r, factor, Scheme()) for r in (rows, rows.view(np.uint16))), strict=True):
        np.testing.assert_array_equal(a, b)


def test_arguments_that_do_not_fit_are_refused():
    factor = gptq_factor(np.eye(32))
    with pytest.raises(ValueError, match="32 columns, the rows have 33"):
        gptq_rows(random_rows(2, 33), factor, Scheme())
    with pytest.raises(ValueError, match="square"):
        gptq_factor(np.ones((3, 4)))
    with pytest.raises(ValueError, match="NaN"):
        gptq_factor(np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="negative"):
        gptq_factor(-np.eye(3))
    with pytest.raises(ValueError, match="damping"):
        gptq_factor(np.eye(3), damping=0)


def test_the_error_for_a_weight_that_is_not_finite_names_its_row_and_column(backend):
    rows = random_rows(600, 32)
    rows[555, 7] = np.inf
    with pytest.raises(NonFiniteError) as caught:
        gptq_rows(rows, gptq_factor(np.eye(32)), Scheme())
    assert (caught.value.row, caught.value.column) == (555, 7)


def test_zero_rows_give_empty_results(backend):
    assert gptq_rows(np.empty((0, 40), ml_dtypes.bfloat16), gptq_factor(np.eye(40)), Scheme()).packed.shape == (
        0,
        2,
        16,
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 128), st.integers(1, 130), st.sampled_from([2, 4, 8]), st.integers(0, 10**6))
def test_the_compiled_kernel_equals_the_numpy_version_to_the_bit(width, n, bits, seed):
    pytest.importorskip("numba")
    generator = np.random.default_rng(seed)
    columns = generator.standard_t(4, (width, n)).astype(np.float32)
    shares = np.triu(generator.uniform(-0.5, 0.5, (width, width)) + np.eye(width)).astype(np.float32)
    groups = generator.integers(0, 3, width)
    scales = generator.uniform(0.1, 1, (3, n)).astype(np.float32)
    zeros = generator.integers(0, 1 << bits, (3, n)).astype(np.float32)
    owed = generator.standard_normal((width, n)).astype(np.float32)
    arguments = columns, owed, shares, groups, (scales, np.float32(1) / scales, zeros), (1 << bits) - 1
    for ours, twins in zip(kernel_calls.gptq_columns(*arguments), gptq._round_columns(*arguments), strict=True):
        np.testing.assert_array_equal(ours, twins)


@st.composite
def odd_hessians(draw, k):
    """Hessians of few tokens, with zero columns, equal columns, columns of very different size, or in float32."""
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    inputs = generator.standard_normal((draw(st.sampled_from([0, 1, 5, 200])), k))
    inputs[:, generator.random(k) < draw(st.sampled_from([0, 0.3]))] = 0
    if draw(st.booleans()):
        inputs = inputs[:, generator.integers(0, k, k)]
    if draw(st.booleans()):
        inputs *= 10.0 ** generator.integers(-4, 4, k)
    return hessian_of(inputs).astype(draw(st.sampled_from([np.float32, np.float64])))


@settings(max_examples=200, deadline=None)
@given(
    st.data(),
    odd_rows(),
    st.sampled_from([2, 4, 8]),
    st.sampled_from([16, 32]),
    st.booleans(),
    st.sampled_from(["numba", "numpy"]),
    st.sampled_from([np.float32, np.float16, "bfloat16"]),
)
def test_no_row_is_worse_than_round_to_nearest(data, rows, bits, block_size, symmetric, name, scales_dtype):
    k = rows.shape[1]
    hessian = data.draw(odd_hessians(k))
    scheme = Scheme(bits, block_size, symmetric)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRUPE_BLOCKQUANT", name)
        ours = gptq_rows(rows, gptq_factor(hessian), scheme, scales_dtype)
        plain = quantize_rows(rows, scheme, scales_dtype)
    assert np.isfinite(ours.scales.astype(np.float32)).all()
    assert (losses(rows, ours, scheme, hessian) <= slack(rows, plain, scheme, hessian)).all()


def slack(rows, plain, scheme, hessian):
    """The loss of round-to-nearest, plus float32 noise from adding the damping to the diagonal and subtracting it."""
    damping = 0.01 * np.diagonal(hessian).mean() * np.eye(len(hessian))
    loss = losses(rows, plain, scheme, hessian.astype(np.float64))
    return loss + 1e-5 * losses(rows, plain, scheme, hessian + damping)
