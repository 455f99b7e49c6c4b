"""Round-to-nearest equals ONNX Runtime's own quantizer to the byte, with numba and with numpy."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from blockquant_cases import both_backends, random_rows

from drupe_blockquant import NonFiniteError, Scheme, quantize_rows, warm_up

SHAPES = [(3, 64, 32), (5, 896, 128), (2, 37, 16), (1, 1, 16), (4, 33, 32), (3, 576, 128), (2, 1000, 256), (7, 100, 64)]


def quantize_with_onnxruntime(rows, scheme):
    quantizers = pytest.importorskip("onnxruntime.capi._pybind_state")
    quantizer = getattr(quantizers, f"quantize_matmul_{scheme.bits}bits", None)
    if quantizer is None:
        pytest.skip(f"this onnxruntime has no {scheme.bits}-bit quantizer")
    n, k = rows.shape
    blocks = scheme.blocks(k)
    columns = np.zeros((blocks * scheme.block_size, n), rows.dtype)
    columns[:k] = rows.T
    packed = np.zeros((n, blocks, scheme.block_size * scheme.bits // 8), np.uint8)
    scales = np.zeros((n, blocks), rows.dtype)
    zeros = np.zeros((n, -(-blocks * scheme.bits // 8)), np.uint8)
    quantizer(packed, columns, scales, zeros, scheme.block_size, n, k, scheme.symmetric)
    # If K ends within a byte, ORT leaves old bits in the unused half, which nothing reads. Ours are 0.
    used = k * scheme.bits % 8
    if used:
        packed.reshape(n, -1)[:, k * scheme.bits // 8] &= (1 << used) - 1
    return packed, scales, None if scheme.symmetric else zeros


def assert_same(ours, theirs):
    for name, a, b in zip(("packed", "scales", "zero_points"), ours[:3], theirs[:3], strict=True):
        if a is None or b is None:
            assert a is b, name
        else:
            assert a.dtype == b.dtype and a.shape == b.shape, name
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_round_to_nearest_equals_onnxruntime_to_the_byte(backend, shape, bits, symmetric, dtype):
    n, k, block_size = shape
    scheme = Scheme(bits, block_size, symmetric)
    rows = random_rows(n, k, dtype, seed=k)
    assert_same(quantize_rows(rows, scheme, dtype), quantize_with_onnxruntime(rows, scheme))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_round_to_nearest_equals_onnxruntime_on_a_large_matrix(bits, symmetric):
    scheme = Scheme(bits, 32, symmetric)
    rows = random_rows(512, 2048, "bfloat16").astype(np.float32)
    assert_same(quantize_rows(rows, scheme), quantize_with_onnxruntime(rows, scheme))


def test_ties_round_away_from_zero_as_in_onnxruntime(backend):
    rows = np.array(
        [[-8, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 6.5, 7.5, 7.4999995, -7.5, 3.5, -3.5, 4.5, -4.5]], np.float32
    )
    scheme = Scheme(4, 16, True)
    assert_same(quantize_rows(rows, scheme), quantize_with_onnxruntime(rows, scheme))


@pytest.mark.parametrize("scales_dtype", [np.float32, np.float16, "bfloat16"], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, "bfloat16"], ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_numba_and_numpy_agree_to_the_byte(monkeypatch, bits, symmetric, dtype, scales_dtype):
    for n, k, block_size in SHAPES:
        assert_same(
            *both_backends(monkeypatch, random_rows(n, k, dtype), Scheme(bits, block_size, symmetric), scales_dtype)
        )


def test_bfloat16_rows_given_as_bit_patterns_give_scales_as_bit_patterns(backend):
    rows = random_rows(3, 70, "bfloat16")
    scheme = Scheme(4, 32, False)
    expected = quantize_rows(rows, scheme, "bfloat16")
    assert expected.scales.dtype == ml_dtypes.bfloat16
    out = expected._replace(packed=np.zeros_like(expected.packed), scales=np.zeros(expected.scales.shape, np.uint16))
    assert quantize_rows(rows.view(np.uint16), scheme, "bfloat16", out=out) is out
    np.testing.assert_array_equal(out.packed, expected.packed)
    np.testing.assert_array_equal(out.scales, expected.scales.view(np.uint16))


def test_results_can_be_written_into_a_flat_buffer_of_the_caller(backend):
    rows = random_rows(3, 70)
    scheme = Scheme(4, 32, False)
    expected = quantize_rows(rows, scheme)
    buffer = bytearray(expected.packed.nbytes)
    flat = np.frombuffer(buffer, np.uint8)
    quantize_rows(rows, scheme, out=expected._replace(packed=flat))
    assert bytes(buffer) == expected.packed.tobytes()


def test_read_only_unaligned_and_strided_rows_are_accepted(backend):
    rows = random_rows(4, 96, "bfloat16")
    scheme = Scheme(4, 32, True)
    expected = quantize_rows(rows, scheme)
    raw = b"x" + rows.tobytes()
    unaligned = np.frombuffer(raw, np.uint16, offset=1).reshape(4, 96)
    assert not unaligned.flags.aligned and not unaligned.flags.writeable
    assert_same(quantize_rows(unaligned, scheme), expected)
    strided = np.zeros((8, 192), rows.dtype)
    strided[::2, ::2] = rows
    assert_same(quantize_rows(strided[::2, ::2], scheme), expected)


@pytest.mark.parametrize("method", ["rtn", "search"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, "bfloat16"], ids=str)
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf], ids=str)
def test_the_error_for_a_value_that_is_not_finite_names_row_and_column(backend, value, dtype, method):
    rows = random_rows(200, 100, dtype)
    rows[150, 99] = value
    with pytest.raises(NonFiniteError, match="row 150, column 99") as caught:
        quantize_rows(rows, Scheme(4, 32, True, method))
    assert (caught.value.row, caught.value.column) == (150, 99)


def test_the_largest_finite_values_are_accepted(backend):
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
        largest = ml_dtypes.finfo(dtype).max
        rows = np.array([[largest, -largest] * 8], dtype)
        for scheme in (
            Scheme(4, 16, True),
            Scheme(4, 16, False),
            Scheme(4, 16, False, "search"),
            Scheme(8, 16, True, "search"),
        ):
            result = quantize_rows(rows, scheme)
            assert np.isfinite(result.scales).all() and (result.scales != 0).all()


@pytest.mark.parametrize("method", ["rtn", "search"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_too_large_for_their_dtype_stay_finite(backend, symmetric, method):
    scheme = Scheme(4, 32, symmetric, method)
    for size in (1e38, 1e8, 1e-6, 3e-8, 1e-9, 1e-39, 1e-44):
        rows = np.random.default_rng(0).normal(0, size / 4, (4, 64)).clip(-size, size).astype(np.float32)
        for dtype in (np.float32, np.float16, "bfloat16"):
            scales = quantize_rows(rows, scheme, dtype).scales.astype(np.float32)
            assert np.isfinite(scales).all(), (size, dtype)


def test_every_float16_is_read_exactly(monkeypatch):
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    rows = every[np.isfinite(every)].reshape(-1, 16)
    assert_same(*both_backends(monkeypatch, rows, Scheme(8, 16, False)))


@pytest.mark.parametrize(
    ("rows", "options", "word"),
    [
        (np.zeros((2, 32), np.float64), {}, "float64"),
        (np.zeros(32, np.float32), {}, "matrix"),
        (np.zeros((2, 0), np.float32), {}, "at least one column"),
        (np.zeros((2, 32), np.float32), {"scales_dtype": np.float64}, "scales"),
        (np.zeros((2, 32), np.float32), {"importance": np.ones(32, np.float32)}, "no effect with method .rtn."),
    ],
)
def test_arguments_that_do_not_fit_are_refused(rows, options, word):
    with pytest.raises(ValueError, match=word):
        quantize_rows(rows, Scheme(), **options)


def test_output_arrays_that_do_not_fit_are_refused():
    rows = random_rows(2, 64)
    good = quantize_rows(rows, Scheme(4, 32, False))
    for bad, word in (
        (good._replace(packed=good.packed[:1]), "packed"),
        (good._replace(scales=good.scales.astype(np.float16)), "scales"),
        (good._replace(zero_points=None), "zero_points"),
        (good._replace(packed=np.asfortranarray(good.packed)), "contiguous"),
    ):
        with pytest.raises(ValueError, match=word):
            quantize_rows(rows, Scheme(4, 32, False), out=bad)


def run_elsewhere(cache):
    """Quantize in a new process that keeps compiled kernels in the folder `cache`."""
    code = (
        "import sys, numpy as np, drupe_blockquant as b;"
        "ready = b.is_ready(np.float32); sum = b.quantize_rows(np.ones((2, 32), np.float32), b.Scheme()).packed.sum();"
        "print(ready, sum, 'numba' in sys.modules)"
    )
    environment = {**os.environ, "DRUPE_BLOCKQUANT_CACHE": str(cache), "DRUPE_BLOCKQUANT": ""}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    return run.stdout.split()


def test_kernels_are_compiled_once_and_again_if_the_cached_code_is_damaged(tmp_path):
    pytest.importorskip("numba")
    assert run_elsewhere(tmp_path) == ["False", "0", "True"]
    assert run_elsewhere(tmp_path) == ["True", "0", "False"]
    [kept] = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])
    assert run_elsewhere(tmp_path) == ["False", "0", "True"]


def test_quantizing_works_if_the_cache_folder_cannot_be_made(tmp_path):
    pytest.importorskip("numba")
    (tmp_path / "file").touch()
    assert run_elsewhere(tmp_path / "file" / "cache") == ["False", "0", "True"]


def test_kernels_can_be_compiled_in_the_background_and_used_from_threads():
    scheme = Scheme(4, 32, False, "search")
    rows = random_rows(64, 96, "bfloat16")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: warm_up(), range(4))) == [None] * 4
        parts = list(pool.map(lambda i: quantize_rows(rows[i : i + 16], scheme).packed, range(0, 64, 16)))
    np.testing.assert_array_equal(np.concatenate(parts), quantize_rows(rows, scheme).packed)
    with pytest.raises(ValueError, match="float64"):
        warm_up(np.float64)


def test_an_unknown_backend_is_refused(monkeypatch):
    monkeypatch.setenv("DRUPE_BLOCKQUANT", "fortran")
    with pytest.raises(ValueError, match="fortran"):
        quantize_rows(random_rows(2, 32), Scheme())


def test_zero_rows_give_empty_results(backend):
    result = quantize_rows(np.zeros((0, 40), np.float32), Scheme(4, 32, False))
    assert [a.shape for a in result if a is not None] == [(0, 2, 16), (0, 2), (0, 1)]
