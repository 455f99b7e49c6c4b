"""Graph files that contain their weights: they are read without the weights. Also inputs and facts of outlines."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from drupe_onnx import ExternalTensor, Files, expression_of
from drupe_onnx.embedded import without_weights
from drupe_onnx.facts import logits_of, weights_of
from drupe_onnx.loading import load_package
from drupe_onnx.outline import Port, outline_of
from drupe_onnx.package_folder import package_files
from drupe_onnx.protobuf import Malformed, message, rewritten, varint

LARGE = np.arange(4000, dtype=np.float32).reshape(40, 100)


def make(nodes=(), inputs=(), outputs=(), weights=None):
    ports = [[helper.make_tensor_value_info(*each) for each in values] for values in (inputs, outputs)]
    tensors = [numpy_helper.from_array(values, name) for name, values in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "g", *ports, tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.fixture
def path(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "large"], ["y"]), helper.make_node("Add", ["y", "small"], ["z"])]
    weights = {"large": LARGE, "small": np.ones(100, np.float32)}
    ports = [("x", TensorProto.FLOAT, ["n", 40])], [("z", TensorProto.FLOAT, ["n", 100])]
    onnx.save(make(nodes, *ports, weights), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_large_weights_are_left_out_and_the_rest_is_unchanged(path):
    whole, stripped = onnx.load(path), onnx.ModelProto.FromString(without_weights(path))
    large, small = stripped.graph.initializer
    assert not large.HasField("raw_data") and large.data_location == TensorProto.EXTERNAL
    assert small == whole.graph.initializer[1]
    for model in (whole, stripped):
        del model.graph.initializer[:]
    assert stripped == whole


def test_a_weight_is_read_from_its_place_in_the_file(path):
    weights = load_package(package_files(path)).component.graph.initializers
    source = expression_of(weights["large"])
    assert isinstance(source, ExternalTensor) and source.path == path
    with Files() as files:
        assert (source.value(files) == LARGE).all()


def test_weights_in_a_data_file_stay_there(path, tmp_path):
    out = tmp_path / "external" / "m.onnx"
    out.parent.mkdir()
    onnx.save(onnx.load(path), out, save_as_external_data=True, location="data.bin", size_threshold=100)
    assert onnx.ModelProto.FromString(without_weights(out)) == onnx.load(out, load_external_data=False)


@pytest.mark.parametrize("cut", [1, 100, 9000, 16000])
def test_a_file_that_is_cut_short_is_malformed(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(Malformed):
        without_weights(path)


def test_numbers_of_any_size_are_rewritten_unchanged():
    for value in (0, 1, 127, 128, 300, 1 << 20, 1 << 40):
        data = message(1, b"x" * 3) + helper.make_node("N", [], ["y"], k=value).SerializeToString()
        assert rewritten(data, 0, len(data), {}) == data
    assert varint(b"\xac\x02", 0, 2) == (300, 2)


def test_an_outline_has_types_and_sizes_of_inputs_and_outputs():
    ports = [
        ("x", TensorProto.FLOAT16, ["batch", 3, None]),
        ("scalar", TensorProto.INT64, []),
        ("of_any_rank", TensorProto.BOOL, None),
        ("with_a_default", TensorProto.FLOAT, [100]),
    ]
    outline = outline_of(
        make(inputs=ports, outputs=ports[:1], weights={"with_a_default": LARGE[0]}).SerializeToString()
    )
    assert outline.inputs == [
        Port("x", TensorProto.FLOAT16, ("batch", 3, None)),
        Port("scalar", TensorProto.INT64, ()),
        Port("of_any_rank", TensorProto.BOOL, None),
    ]
    assert outline.outputs == outline.inputs[:1]


def test_an_outline_has_the_inputs_and_outputs_of_nodes():
    outline = outline_of(make([helper.make_node("Clip", ["x", "", "high"], ["y"])]).SerializeToString())
    assert [(node.inputs, node.outputs) for node in outline.nodes] == [(("x", "", "high"), ("y",))]


PRODUCT = helper.make_node("MatMul", ["x", "large"], ["y"])
CAST = [helper.make_node("Cast", ["large"], ["wide"], to=1), helper.make_node("MatMul", ["x", "wide"], ["y"])]
LOOK_UP = helper.make_node("Gather", ["large", "ids"], ["y"])
ROTARY = helper.make_node("Gather", ["large", "computed"], ["y"])
QUANTIZED = helper.make_node("MatMulNBits", ["x", "levels", "scales"], ["q"], domain="com.microsoft", bits=4)
INTEGER = helper.make_node("MatMulInteger", ["x", "levels"], ["q"])


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([PRODUCT], "float"),
        ([], "float"),
        ([QUANTIZED], "quantized"),
        ([INTEGER], "quantized"),
        ([QUANTIZED, ROTARY], "quantized"),
        ([QUANTIZED, PRODUCT], "mixed"),
        ([QUANTIZED, *CAST], "mixed"),
        ([INTEGER, LOOK_UP], "mixed"),
    ],
)
def test_the_fact_weights_says_whether_all_some_or_no_matrices_are_quantized(nodes, expected):
    model = make(
        nodes, [("ids", TensorProto.INT64, ["n"])], weights={"large": LARGE, "levels": np.ones((4, 4), np.uint8)}
    )
    assert weights_of(outline_of(model.SerializeToString())) == expected


@pytest.mark.parametrize(("shape", "expected"), [(["b", 1, 9], "last"), (["b", "s", 9], "all"), (["b", 1], "all")])
def test_the_fact_logits_is_last_if_the_graph_declares_one_token(shape, expected):
    model = make(outputs=[("logits", TensorProto.FLOAT, shape)])
    assert logits_of(outline_of(model.SerializeToString())) == expected
