"""What passes leave at a site for later passes: schemes, importance of columns, replaced matrices, quantized parts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from drupe.api import Context, ModelError, replace
from drupe_blockquant import Scheme, dequantize_rows, quantize_rows
from drupe_ep_cpu.provider import Cpu
from drupe_nbits import Rewriter, assign, find_sites, replace_rows, weigh
from drupe_onnx import ROLE, Array, OnnxPackage, Transpose, expression_of, initializer, ir, write_package
from drupe_onnx.stored_weights import stored_weights

N, K = 6, 64
WEIGHTS = np.random.default_rng(0).normal(0, 1, (N, K)).astype(np.float32)
SEARCH = Scheme(4, 32, False, "search")
TARGET = Cpu().target()


def one_product() -> ir.Model:
    """x @ w, where the weight is the transpose of a checkpoint's matrix."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["T", K]))
    weight = initializer("w", Transpose(Array(WEIGHTS)))
    node = ir.Node("", "MatMul", [x, weight], name="product")
    node.outputs[0].name = "y"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], [node.outputs[0]], nodes=[node], initializers=[weight], opset_imports={"": 21})
    return ir.Model(graph, ir_version=10)


def written(model: ir.Model, folder: Path) -> ir.Model:
    folder.mkdir()
    write_package(OnnxPackage({"model": model}), folder, Context(TARGET, folder))
    return ir.load(folder / "model.onnx")


def test_an_assigned_scheme_is_found_at_its_site() -> None:
    model = one_product()
    [site] = find_sites(model.graph)
    assert site.scheme is None
    assign(site.node, Scheme(8, 64, True))
    [site] = find_sites(model.clone().graph)
    assert site.scheme == Scheme(8, 64, True)
    site.node.metadata_props["drupe.scheme"] = json.dumps({"bits": 5})
    with pytest.raises(ModelError, match="product"):
        _ = site.scheme


def test_importance_of_columns_is_kept_at_a_site_and_used_by_the_search(tmp_path: Path) -> None:
    model = one_product()
    importance = np.linspace(0, 3, K, dtype=np.float32) ** 4
    [site] = find_sites(model.graph)
    weigh(site, Array(importance))
    [site] = find_sites(model.clone().graph)
    assert site.importance is not None
    assert site.rows == Array(WEIGHTS)
    graph = model.graph
    Rewriter(graph, TARGET.capabilities).rewrite(find_sites(graph)[0], SEARCH)
    packed = written(model, tmp_path / "out").graph.initializers
    expected = quantize_rows(WEIGHTS, SEARCH, importance=importance)
    [name] = [name for name in packed if name.endswith("_weight")]
    np.testing.assert_array_equal(packed[name].const_value.numpy(), expected.packed)  # type: ignore[union-attr]


def test_replace_rows_replaces_the_matrix_of_a_site() -> None:
    model = one_product()
    [site] = find_sites(model.graph)
    replace_rows(site, Array(2 * WEIGHTS))
    [site] = find_sites(model.graph)
    assert site.rows == Array(2 * WEIGHTS)
    assert expression_of(site.weight) == Transpose(Array(2 * WEIGHTS))


def test_quantized_parts_that_are_given_are_written_unchanged(tmp_path: Path) -> None:
    model = one_product()
    made = quantize_rows(WEIGHTS, SEARCH)
    [site] = find_sites(model.graph)
    Rewriter(model.graph, TARGET.capabilities).rewrite(site, SEARCH, [Array(part) for part in made if part is not None])
    [node] = written(model, tmp_path / "out").graph
    assert node.op_type == "MatMulNBits"
    for value, part in zip(node.inputs[1:], made[:3], strict=True):
        np.testing.assert_array_equal(value.const_value.numpy(), part)  # type: ignore[union-attr]


def test_onnxruntime_multiplies_two_level_scales_out_before_the_first_run(tmp_path: Path) -> None:
    import onnxruntime

    scheme = replace(SEARCH, two_level=True)
    model = one_product()
    [site] = find_sites(model.graph)
    Rewriter(model.graph, TARGET.capabilities, accuracy_level=0).rewrite(site, scheme)
    written(model, tmp_path / "out")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "opened.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", options, providers=["CPUExecutionProvider"])
    assert [node.op_type for node in ir.load(tmp_path / "opened.onnx").graph] == ["MatMulNBits"]
    x = np.random.default_rng(1).normal(0, 1, (3, K)).astype(np.float32)
    expected = x @ dequantize_rows(quantize_rows(WEIGHTS, scheme), scheme, K).T
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, atol=1e-4)


def test_sites_that_share_a_matrix_share_the_nodes_that_compute_its_scales() -> None:
    model = one_product()
    again = ir.Node("", "MatMul", list(next(iter(model.graph)).inputs), name="again")
    again.outputs[0].name, again.outputs[0].type = "z", ir.TensorType(ir.DataType.FLOAT)
    model.graph.append(again)
    model.graph.outputs.append(again.outputs[0])
    rewriter = Rewriter(model.graph, TARGET.capabilities)
    for site in find_sites(model.graph):
        rewriter.rewrite(site, replace(SEARCH, two_level=True))
    operators = sorted(node.op_type for node in model.graph)
    assert operators == ["Cast", "Cast", "MatMulNBits", "MatMulNBits", "Mul"]


def test_units_of_two_level_scales_count_as_bytes_of_their_matrix() -> None:
    """Also if nodes lie between the units and the product. `drupe optimize --plan` prints the bytes of each role."""
    stored = {}
    for two_level in (False, True):
        model = one_product()
        [site] = find_sites(model.graph)
        site.node.metadata_props[ROLE] = "head"
        scheme = replace(SEARCH, two_level=two_level)
        Rewriter(model.graph, TARGET.capabilities).rewrite(site, scheme)
        [head, rest] = stored_weights(model.graph)
        assert (head.role, head.bytes, rest.bytes) == ("head", scheme.bytes_for(N, K, 4), 0)
        stored[two_level] = head
    assert stored[True].scheme == stored[False].scheme
