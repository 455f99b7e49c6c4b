"""Taking weights out of a graph: it computes the same when they are passed as inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from drupe.api import ModelError
from drupe_layerwise.head import sliced_head
from drupe_layerwise.weights import made, take_out
from drupe_onnx import Array, Cast, Concat, Permute, Transpose, initializer, ir

RANDOM = np.random.default_rng(5)


def floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def graph_of(text: str, **weights: Any) -> ir.Model:
    """A graph from text, with these weights as expressions."""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]>\n{text}')
    for name, expression in weights.items():
        given = next(value for value in model.graph.inputs if value.name == name)
        model.graph.inputs.remove(given)
        held = initializer(name, expression)
        given.replace_all_uses_with(held)
        model.graph.register_initializer(held)
    return model


def run(model: ir.Model, path: Path, given: dict[str, Any]) -> Any:
    ir.save(model, path)
    return onnxruntime.InferenceSession(str(path)).run(None, given)[0]


def close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


MATRIX = floats(24, 16)
TEXTS = {
    "MatMul": "g (float[1, n, 24] x, float[24, 16] w) => (float[1, n, 16] y) { y = MatMul(x, w) }",
    "Gemm": "g (float[n, 24] x, float[16, 24] w) => (float[n, 16] y) { y = Gemm <transB = 1> (x, w) }",
    "Cast": "g (float[n, 24] x, bfloat16[24, 16] w) => (float[n, 16] y) { f = Cast <to = 1> (w)  y = MatMul(x, f) }",
}
BFLOAT16 = ir.DataType.BFLOAT16


@pytest.mark.parametrize(
    ("text", "matrix"),
    [
        ("MatMul", Array(MATRIX)),
        ("MatMul", Transpose(Array(np.ascontiguousarray(MATRIX.T)))),
        ("Gemm", Array(np.ascontiguousarray(MATRIX.T))),
        ("Cast", Cast(Array(MATRIX), BFLOAT16)),
        ("Cast", Transpose(Cast(Array(np.ascontiguousarray(MATRIX.T)), BFLOAT16))),
    ],
)
def test_a_product_with_its_matrix_as_input_gives_the_same(text: str, matrix: Any, tmp_path: Path) -> None:
    model = graph_of(TEXTS[text], w=matrix)
    weights = take_out(model)
    assert len(weights.matrices) == 1 and not model.graph.initializers
    x = floats(1, 5, 24) if text == "MatMul" else floats(5, 24)
    stored = MATRIX.astype(BFLOAT16.numpy()).astype(np.float32) if text == "Cast" else MATRIX
    close(run(model, tmp_path / "m.onnx", {"x": x, **weights.made(2)}), x @ stored)


def test_a_matrix_of_two_products_becomes_one_input(tmp_path: Path) -> None:
    text = "g (float[n, 16] x, float[16, 16] w) => (float[n, 16] y) { h = MatMul(x, w)  y = MatMul(h, w) }"
    square = floats(16, 16)
    model = graph_of(text, w=Transpose(Array(square)))
    weights = take_out(model)
    x = floats(3, 16)
    close(run(model, tmp_path / "m.onnx", {"x": x, **weights.made(1)}), x @ square.T @ square.T)


def test_a_weight_of_three_axes_stays_a_constant(tmp_path: Path) -> None:
    text = "g (float[n, 16] x, float[2, 16, 4] w) => (float[2, n, 4] y) { y = MatMul(x, w) }"
    experts, x = floats(2, 16, 4), floats(3, 16)
    model = graph_of(text, w=Array(experts))
    assert take_out(model).matrices == {}
    close(run(model, tmp_path / "m.onnx", {"x": x}), x @ experts)


def test_a_table_is_passed_as_the_rows_of_the_tokens_only(tmp_path: Path) -> None:
    text = "g (int64[b, n] input_ids, float[32, 4] table) => (float[b, n, 4] y) { y = Gather(table, input_ids) }"
    table = floats(32, 4)
    model = graph_of(text, table=Array(table))
    (look_up,) = take_out(model).look_ups
    tokens = np.array([[7, 3, 7], [31, 0, 3]])
    given = look_up.inputs({"input_ids": tokens})
    assert given["table"].shape == (4, 4)
    np.testing.assert_array_equal(run(model, tmp_path / "m.onnx", {"input_ids": tokens, **given}), table[tokens])
    with pytest.raises(ModelError, match="token 32, but 'table' has only 32 rows"):
        look_up.inputs({"input_ids": tokens + 1})


@pytest.mark.parametrize(
    "expression",
    [
        Concat((Array(floats(300, 40)), Array(floats(7, 40)))),
        Transpose(Array(floats(40, 300))),
        Permute(Array(floats(40, 300)), (1, 0)),
        Cast(Array(floats(3, 5)), ir.DataType.FLOAT16),
    ],
    ids=lambda each: type(each).__name__,
)
def test_made_computes_the_whole_matrix_in_bands(expression: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drupe_layerwise.weights._BAND", 4096)
    from drupe_onnx import Files

    with Files() as files:
        expected = np.array(expression.value(files))
    np.testing.assert_array_equal(made(expression, threads=3), expected)


@pytest.mark.parametrize("transposed", [True, False])
def test_a_head_is_passed_in_ranges_of_columns_or_of_rows_if_transposed(transposed: bool, tmp_path: Path) -> None:
    matrix = Transpose(Array(floats(50, 8))) if transposed else Array(floats(8, 50))
    model = graph_of("g (float[1, n, 8] x, float[8, 50] w) => (float[1, n, 50] y) { y = MatMul(x, w) }", w=matrix)
    (hidden,), (result,) = model.graph.inputs, model.graph.outputs
    rows = floats(1, 3, 8)
    head = sliced_head(model, hidden, result, limit=4 * 8 * 20)
    assert head is not None and head.ranges == [(0, 20), (20, 40), (40, 50)]
    result.shape = None
    parts = [
        run(model, tmp_path / "m.onnx", {"x": rows, "w": head.range(first, last, threads=1)})
        for first, last in head.ranges
    ]
    close(np.concatenate(parts, axis=-1), rows @ made(matrix, 1))


def test_a_head_with_a_bias_is_not_passed_in_ranges() -> None:
    text = (
        "g (float[1, n, 8] x, float[8, 50] w, float[50] b) => (float[1, n, 50] y) { h = MatMul(x, w)  y = Add(h, b) }"
    )
    model = graph_of(text, w=Array(floats(8, 50)), b=Array(floats(50)))
    assert sliced_head(model, model.graph.inputs[0], model.graph.outputs[0], limit=640) is None
    assert set(model.graph.initializers) == {"w", "b"}
