"""Expressions: reading rows or columns in pieces gives the whole, and JSON gives an equal expression back."""

from __future__ import annotations

import functools
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drupe.api import ModelError, replace
from drupe_onnx import (
    Access,
    Affine,
    Array,
    Cast,
    Concat,
    Expression,
    ExternalTensor,
    Files,
    OutputSpec,
    Permute,
    Produced,
    Producer,
    Reshape,
    RowRange,
    SafetensorsTensor,
    Take,
    Transpose,
    fingerprint,
    from_json,
    ir,
    numeric,
    to_json,
)

FLOAT, FLOAT16, BFLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


class Split(Producer):
    """A producer for tests. Its outputs are the doubled rows and their sums."""

    source: Expression

    outputs = property(
        lambda self: (
            OutputSpec("doubled", self.source.shape, FLOAT),
            OutputSpec("sums", (self.rows, 1), FLOAT),
        )
    )
    rows = property(lambda self: self.source.shape[0])
    label = "split"

    def produce(self, start: int, stop: int, files: Files) -> tuple[np.ndarray, ...]:
        rows = self.source.rows(start, stop, files).astype(np.float32)
        return rows * 2, rows.sum(1, keepdims=True)

    def working_bytes(self, rows: int) -> int:
        return self.source.working_bytes(rows) + rows * self.source.shape[1] * 12


def on_disk(folder: Path, values: np.ndarray, kind: str = "safetensors") -> Expression:
    path = folder / f"{np.random.default_rng().integers(1 << 60)}.bin"
    path.write_bytes(b"7 bytes" + values.tobytes())
    dtype = ir.DataType.from_numpy(values.dtype)
    if kind == "safetensors":
        return SafetensorsTensor(path, "w", dtype, values.shape, 7)
    return ExternalTensor(path, dtype, values.shape, 7)


def matrix(rows: int, columns: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(dtype)


@functools.cache
def cases(folder: Path) -> dict[str, tuple[Expression, np.ndarray]]:
    """One expression of each kind, with its values computed by numpy."""
    a, b = matrix(37, 24), matrix(11, 24, seed=1)
    half, brain = matrix(37, 24, np.float16), matrix(37, 24, ml_dtypes.bfloat16)
    vector = matrix(1, 24, seed=2)[0]
    cube = np.random.default_rng(3).standard_normal((6, 5, 4)).astype(np.float32)
    indices = np.random.default_rng(4).permutation(37)[:20]
    far = np.array([0, 36, 1, 2, 35])
    ints = np.arange(40, dtype=np.int64)
    A, B = on_disk(folder, a), on_disk(folder, b, "external")
    return {
        "safetensors": (A, a),
        "external": (on_disk(folder, brain, "external"), brain),
        "vector": (on_disk(folder, ints), ints),
        "array": (Array(a), a),
        "concat": (Concat((A, B, Array(a))), np.concatenate([a, b, a])),
        "transpose": (Transpose(A), a.T),
        "transpose twice": (Transpose(Transpose(A)), a),
        "transpose of a concat": (Transpose(Concat((A, B))), np.concatenate([a, b]).T),
        "transpose of a widening cast": (Transpose(Cast(on_disk(folder, brain), FLOAT)), brain.astype(np.float32).T),
        "cast of a transpose": (Cast(Transpose(A), BFLOAT16), a.T.astype(ml_dtypes.bfloat16)),
        "concat of transposes": (Concat((Transpose(A), Transpose(A))), np.concatenate([a.T, a.T])),
        "permute": (Permute(on_disk(folder, cube), (2, 0, 1)), cube.transpose(2, 0, 1)),
        "permute behind axis 0": (Permute(on_disk(folder, cube), (0, 2, 1)), cube.transpose(0, 2, 1)),
        "reshape": (Reshape(A, (-1, 12)), a.reshape(-1, 12)),
        "reshape across rows": (Reshape(A, (8, 111)), a.reshape(8, 111)),
        "reshape of a transpose": (Reshape(Transpose(A), (37, 24)), a.T.reshape(37, 24)),
        "row range": (RowRange(A, 2, 5), a[2:5]),
        "row range of a transpose": (RowRange(Transpose(A), 1, 3), a.T[1:3]),
        "take": (Take(A, Array(indices)), a[indices]),
        "take far apart": (Take(A, Array(far)), a[far]),
        "take of a transpose": (Take(Transpose(A), Array(np.array([3, 1]))), a.T[[3, 1]]),
        "bf16 to fp32": (Cast(on_disk(folder, brain), FLOAT), brain.astype(np.float32)),
        "bf16 to fp16": (Cast(on_disk(folder, brain), FLOAT16), brain.astype(np.float16)),
        "fp16 to fp32": (Cast(on_disk(folder, half), FLOAT), half.astype(np.float32)),
        "fp32 to fp16": (Cast(A, FLOAT16), a.astype(np.float16)),
        "fp32 to bf16": (Cast(A, BFLOAT16), a.astype(ml_dtypes.bfloat16)),
        "affine": (Affine(A, Array(vector), 1.0), a * vector + np.float32(1)),
        "affine of a transpose": (Affine(Transpose(A), 2.0, Array(a[:, 0])), a.T * np.float32(2) + a[:, 0]),
        "affine of a vector": (Affine(Array(vector), 1.0, 1.0), vector + np.float32(1)),
        "affine of two vectors": (Affine(Array(vector), Array(vector), 0.0), vector * vector),
        "produced": (Produced(Split(A), 0), a * 2),
        "produced beside it": (Produced(Split(A), 1), a.sum(1, keepdims=True)),
    }


with tempfile.TemporaryDirectory() as somewhere:
    NAMES = sorted(cases(Path(somewhere)))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_reading_rows_in_any_pieces_gives_the_whole(folder, name, data):
    expression, expected = cases(folder)[name]
    assert expression.shape == expected.shape
    assert expression.dtype.numpy() == expected.dtype
    cuts = data.draw(st.lists(st.integers(0, expression.row_count), max_size=4))
    edges = sorted({0, *cuts, expression.row_count})
    with Files(reuse=True) as files:
        pieces = []
        for start, stop in itertools.pairwise(edges):
            files.recycle()
            pieces.append(expression.rows(start, stop, files).copy())
            assert pieces[-1].shape == (stop - start, *expected.shape[1:])
    np.testing.assert_array_equal(np.concatenate(pieces), expected)


@pytest.mark.parametrize("name", [name for name in NAMES if "vector" not in name and "permute" not in name])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_reading_columns_in_any_pieces_gives_the_whole(folder, name, data):
    expression, expected = cases(folder)[name]
    edges = sorted({0, *data.draw(st.lists(st.integers(0, expected.shape[1]), max_size=3)), expected.shape[1]})
    with Files() as files:
        pieces = [expression.columns(*each, files) for each in itertools.pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), expected)


@pytest.mark.parametrize("name", NAMES)
def test_an_expression_from_json_is_equal_and_has_the_same_fingerprint(folder, name):
    expression, expected = cases(folder)[name]
    again = from_json(json.loads(json.dumps(to_json(expression))))
    assert again == expression
    assert hash(again) == hash(expression)
    assert fingerprint(again) == fingerprint(expression)
    with Files() as files:
        np.testing.assert_array_equal(again.value(files), expected)


def test_different_expressions_have_different_fingerprints(folder):
    fingerprints = {fingerprint(expression) for expression, _ in cases(folder).values()}
    assert len(fingerprints) == len(NAMES)


def test_a_fingerprint_changes_with_the_file(folder):
    source = on_disk(folder, matrix(3, 3))
    before = fingerprint(source)
    source.path.write_bytes(b"x" * 100)
    assert fingerprint(source) != before
    source.path.unlink()
    with pytest.raises(ModelError, match="does not exist any more"):
        fingerprint(source)


def test_equal_arrays_are_equal_expressions_and_cannot_be_changed():
    values = matrix(3, 4)
    array = Array(values)
    values[0, 0] = 99
    assert array == Array(matrix(3, 4)) != Array(values)
    with pytest.raises(ValueError, match="read-only"):
        array.values[0, 0] = 1


def test_access_says_whether_rows_tiles_or_the_whole_are_cheap_to_read(folder):
    found = {name: expression.access for name, (expression, _) in cases(folder).items()}
    assert found["concat"] == found["affine"] == found["transpose twice"] == found["produced"] == Access.ROWS
    assert found["transpose"] == found["cast of a transpose"] == found["affine of a transpose"] == Access.TILES
    assert found["permute"] == found["reshape of a transpose"] == Access.WHOLE


@pytest.mark.parametrize("dtype", [ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT2, ir.DataType.UINT2])
def test_types_smaller_than_a_byte_are_read_from_their_packed_form(folder, dtype):
    bits = dtype.bitwidth
    low = -(1 << (bits - 1)) if dtype.is_signed() else 0
    values = np.random.default_rng(0).integers(low, low + (1 << bits), (7, 6)).astype(dtype.numpy())
    packed = ir.Tensor(values).tobytes()
    path = folder / f"{dtype}.bin"
    path.write_bytes(packed)
    source = ExternalTensor(path, dtype, (7, 6), 0)
    with Files() as files:
        np.testing.assert_array_equal(source.value(files).astype(int), values.astype(int))
        np.testing.assert_array_equal(source.rows(3, 5, files).astype(int), values[3:5].astype(int))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_the_error_for_nan_or_inf_names_tensor_and_place(folder, dtype, bad):
    values = matrix(700, 900).astype(dtype)
    values[613, 17] = bad
    source = on_disk(folder, values)
    with Files() as files:
        for read in (lambda: source.rows(600, 700, files), lambda: source.columns(0, 400, files)):
            with pytest.raises(ModelError, match=r"'w' holds (NaN|Inf), first at \[613, 17\]"):
                read()
        assert source.rows(0, 613, files).shape == (613, 900)


@pytest.mark.parametrize(
    "name", ["int4", "uint4", "int2", "int8", "bool", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"]
)
def test_types_that_cannot_hold_nan_or_inf_are_not_refused(name):
    dtype = np.dtype(name if name in ("int8", "bool") else getattr(ml_dtypes, name))
    assert numeric.all_finite((np.arange(64).reshape(8, 8) % 2).astype(dtype))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_the_error_for_nan_in_an_eight_bit_type_names_the_place(folder, name):
    values = matrix(30, 40).astype(getattr(ml_dtypes, name))
    with Files() as files:
        np.testing.assert_array_equal(on_disk(folder, values).value(files), values)
        values[13, 7] = np.nan
        with pytest.raises(ModelError, match=r"'w' holds NaN, first at \[13, 7\]"):
            on_disk(folder, values).value(files)


def test_the_largest_finite_values_are_accepted(folder):
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32):
        largest = ml_dtypes.finfo(dtype).max
        values = np.array([largest, -largest, 0, -0.0], dtype)
        with Files() as files:
            np.testing.assert_array_equal(on_disk(folder, values).value(files), values)


def test_inf_in_external_data_is_accepted_because_masks_contain_it(folder):
    values = np.array([[0, -np.inf]], np.float32)
    with Files() as files:
        np.testing.assert_array_equal(on_disk(folder, values, "external").value(files), values)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_the_error_for_a_value_too_large_for_float16_names_tensor_and_cure(folder, dtype):
    values = matrix(8, 8).astype(dtype)
    values[3, 3] = -1e6
    with Files() as files, pytest.raises(ModelError, match=r"'w' holds .*the largest float16 is 65504") as caught:
        Cast(on_disk(folder, values), FLOAT16).value(files)
    assert caught.value.cure == "--precision bf16 or fp32"


def test_the_error_for_a_result_too_large_for_float16_names_it_and_ignores_an_inf_in_the_source(folder):
    values = np.array([[-np.inf, 60000.0]], np.float16)
    with Files() as files:
        np.testing.assert_array_equal(Affine(on_disk(folder, values, "external"), 1.0, 1.0).value(files), values)
        with pytest.raises(ModelError, match=r"holds 120000; the largest float16 is 65504"):
            Affine(on_disk(folder, values, "external"), 2.0).value(files)
        with pytest.raises(ModelError, match=r"holds 120000; the largest float16 is 65504"):
            Cast(Array(values.astype(np.float32) * 2), FLOAT16).value(files)


class Watched(Files):
    """Counts the memory that its thread asks for."""

    def wanted(self) -> int:
        return self._arena().wanted

    def kept(self) -> int:
        return len(self._arena().memory)


@pytest.mark.parametrize(
    "make", [Transpose, lambda m: Concat((Transpose(m),) * 3), lambda m: Affine(Transpose(m), 2.0)]
)
def test_rows_of_a_transpose_take_no_more_memory_than_they_declare(folder, make, monkeypatch):
    monkeypatch.setattr("drupe_onnx.expressions.expression._BAND", 64 << 10)
    values = matrix(4096, 1024)
    expression = make(on_disk(folder, values))
    with Watched(reuse=True) as files:
        for start in (0, 8):
            files.recycle()
            rows = expression.rows(start, start + 8, files)
            assert files.wanted() <= 1.05 * expression.working_bytes(8) < values.nbytes / 8
            assert np.array_equal(rows, make(Array(values)).rows(start, start + 8, files))


def test_temporary_memory_is_used_again_and_earlier_memory_is_kept():
    with Watched(reuse=True) as files:
        for _ in range(2):
            files.recycle()
            held = files.empty(100, np.uint8)
            held[:] = 7
            for _ in range(10):
                with files.passing():
                    files.empty(1000, np.uint8)[:] = 1
            assert (held == 7).all()
            assert files.wanted() < 1300


def test_a_thread_keeps_no_more_memory_than_its_limit():
    with Watched(reuse=True, keep=4096) as files:
        files.empty(1 << 20, np.uint8)
        files.recycle()
        assert files.kept() == 4096
        files.empty((1 << 10,), np.float64)[:] = 1  # larger than what is kept: fresh memory
        files.recycle()
        assert files.kept() == 4096
        files.let_go()
        assert files.kept() == 0


def test_the_error_for_a_file_that_ends_early_names_the_offset(folder):
    path = folder / "short.bin"
    path.write_bytes(b"x" * 100)
    with Files() as files, pytest.raises(ModelError, match=r"'short.bin' ends at byte 100, 28 bytes too early"):
        SafetensorsTensor(path, "w", FLOAT, (32,), 0).value(files)


def test_operands_that_do_not_fit_are_refused():
    a = Array(matrix(2, 3))
    for make in (
        lambda: Concat((a, Array(matrix(2, 4)))),
        lambda: Concat((a, Cast(a, FLOAT16))),
        lambda: Transpose(Array(np.zeros(3, np.float32))),
        lambda: Reshape(a, (4, 2)),
        lambda: Permute(a, (0, 0)),
        lambda: RowRange(a, 1, 9),
        lambda: Take(a, Array(np.array([2]))),
        lambda: Affine(a, Array(np.zeros(2, np.float32))),
    ):
        with pytest.raises(ValueError, match=r"fit|not in a tensor|takes a matrix|cannot be reshaped|one value"):
            make()


def test_the_error_for_an_unknown_kind_of_expression_names_it():
    document = to_json(Array(matrix(1, 1)))
    with pytest.raises(ModelError, match="'acme_rotate:Rotate' is not installed"):
        from_json({**document, "kind": "acme_rotate:Rotate"})
    with pytest.raises(ModelError, match="not a weight expression"):
        from_json({"kind": "os:system", "fields": {"command": "true"}})


def test_replace_gives_a_source_another_shape(folder):
    values = matrix(4, 6)
    with Files() as files:
        np.testing.assert_array_equal(replace(on_disk(folder, values), shape=(24,)).value(files), values.reshape(-1))
