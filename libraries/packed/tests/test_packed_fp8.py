"""Floats of 8 bits: any range of rows has the values that its blocks' scales give, in every form of scales."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from drupe.api import ModelError
from drupe_onnx import Array, Expression, Files, RowRange, from_json, member, to_json
from drupe_packed import Packing, Rule, matrices

BLOCK = (16, 24)
RULES = (Rule(8, 24, symmetric=True),)


def levels(*shape: int) -> Any:
    return np.random.default_rng(1).standard_normal(shape).astype(ml_dtypes.float8_e4m3fn)


def scales(*shape: int) -> Any:
    return np.random.default_rng(2).uniform(0.1, 2, shape).astype(np.float32)


def dequantized(values: Any, factors: Any) -> Any:
    rows, columns = values.shape[-2:]
    wide = np.repeat(np.repeat(factors, BLOCK[0], -2), BLOCK[1], -1)[..., :rows, :columns]
    return values.astype(np.float32) * wide


def opened(tensors: dict[str, Any], block: tuple[int, int] | None = BLOCK) -> dict[str, Expression]:
    found: dict[str, Expression] = matrices(
        {name: Array(values) for name, values in tensors.items()}, Packing("fp8", RULES, block)
    )
    return found


def test_rows_have_the_scales_of_their_blocks() -> None:
    values, factors = levels(40, 50), scales(3, 3)
    plain = {"m.bias": np.ones(40, np.float32), "m.input_scale": np.ones(1, np.float32)}
    found = opened({"m.weight": values, "m.weight_scale_inv": factors, **plain})
    assert set(found) == {"m.weight", "m.bias"}
    matrix, expected = found["m.weight"], dequantized(values, factors)
    with Files() as files:
        for start, stop in [(0, 40), (0, 1), (15, 17), (31, 40), (39, 40)]:
            np.testing.assert_array_equal(RowRange(matrix, start, stop).value(files), expected[start:stop])
        np.testing.assert_array_equal(matrix.columns(10, 30, files), expected[:, 10:30])


def test_merged_experts_have_scales_of_their_own() -> None:
    values, factors = levels(3, 40, 50), scales(3, 3, 3)
    merged = opened({"experts.gate_up_proj": values, "experts.gate_up_proj_scale_inv": factors})["experts.gate_up_proj"]
    expected = dequantized(values, factors)
    with Files() as files:
        np.testing.assert_array_equal(merged.value(files), expected)
        np.testing.assert_array_equal(merged.rows(1, 3, files), expected[1:])
        np.testing.assert_array_equal(member(merged, 2).value(files), expected[2])


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_matrix_may_have_one_scale(shape: tuple[int, ...]) -> None:
    values = levels(40, 50)
    matrix = opened({"m.weight": values, "m.weight_scale_inv": np.full(shape, 0.3, np.float32)}, None)["m.weight"]
    with Files() as files:
        np.testing.assert_array_equal(matrix.rows(3, 9, files), values[3:9].astype(np.float32) * np.float32(0.3))


@pytest.mark.parametrize("kind", [np.uint8, ml_dtypes.float8_e8m0fnu])
def test_scales_may_be_exponents_of_two(kind: Any) -> None:
    values, exponents = levels(40, 50), np.random.default_rng(3).integers(120, 130, (3, 3), np.uint8)
    stored = exponents if kind is np.uint8 else exponents.view(kind)
    matrix = opened({"m.weight": values, "m.weight_scale_inv": stored})["m.weight"]
    with Files() as files:
        expected = dequantized(values, np.ldexp(np.float32(1), exponents.astype(int) - 127))
        np.testing.assert_array_equal(matrix.value(files), expected)


def test_values_from_json_are_equal() -> None:
    matrix = opened({"m.weight": levels(40, 50), "m.weight_scale_inv": scales(3, 3)})["m.weight"]
    again = from_json(to_json(matrix))
    with Files() as files:
        np.testing.assert_array_equal(again.value(files), matrix.value(files))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"m.weight": levels(40, 50)}, "lacks the tensor 'm.weight_scale_inv'"),
        (
            {"m.weight": levels(40, 50), "m.weight_scale_inv": scales(2, 3)},
            r"does not fit scales .*in blocks of \[16, 24\]",
        ),
        ({"m.weight": scales(40, 50), "m.weight_scale_inv": scales(3, 3)}, "although it has scales"),
        ({"m.weight": levels(40), "m.weight_scale_inv": scales(3)}, "no scales of"),
        ({"m.weight": levels(40, 50), "m.weight_scale_inv": np.ones((3, 3), np.int32)}, "int32"),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(tensors: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        opened(tensors)
