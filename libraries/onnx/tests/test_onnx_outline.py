"""The outline of a graph: read without its weights, and without a library."""

from __future__ import annotations

import contextlib
import json
import os
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from drupe_onnx import ir
from drupe_onnx.elements import ELEMENTS, element_name
from drupe_onnx.outline import Malformed, outline_of, read_outline
from drupe_onnx_models.plugin import drupe_resolve_model


def nested_model() -> onnx.ModelProto:
    """A quantized last-token node in a branch, and weights whose bytes and names look like operators and roles."""
    inner = helper.make_node("MatMulNBits", ["x", "w"], ["o"], domain="com.microsoft", K=64, bits=4, block_size=32)
    entry = inner.metadata_props.add()
    entry.key, entry.value = "drupe.role", "last-token"
    branch = helper.make_graph([inner], "b", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)])
    outer = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    held = TensorProto(
        name="w", data_type=TensorProto.UINT8, dims=[2, 1 << 19], raw_data=b"GatherBlockQuantized\x0a" * 8
    )
    graph = helper.make_graph(
        [outer], "g", [], [], [held, numpy_helper.from_array(np.zeros(3, np.float32), "last-token")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, {"drupe.float_matrices": json.dumps(["a", "b", "c", "d"]), "key": "value"})
    return model


def test_an_outline_equals_what_onnx_reads():
    model = nested_model()
    outline = outline_of(model.SerializeToString())
    assert sorted(node.operator for node in outline.nodes) == ["If", "MatMulNBits", "MatMulNBits"]
    (node, _) = (node for node in outline.nodes if node.integers)
    assert (node.integers, node.metadata) == ({"K": 64, "bits": 4, "block_size": 32}, {"drupe.role": "last-token"})
    assert [(weight.name, weight.element, weight.shape, weight.external) for weight in outline.weights] == [
        (tensor.name, tensor.data_type, tuple(tensor.dims), {}) for tensor in model.graph.initializer
    ]
    assert outline.metadata == {entry.key: entry.value for entry in model.metadata_props}


def test_broken_bytes_are_malformed_or_give_an_outline():
    whole = nested_model().SerializeToString()
    rng = np.random.default_rng(0)
    for cut in range(1, len(whole), 7):
        with pytest.raises(Malformed):
            outline_of(whole[:-cut])
    for _ in range(500):
        broken = bytearray(whole)
        broken[rng.integers(len(broken))] = rng.integers(256)
        with contextlib.suppress(Malformed):
            outline_of(bytes(broken))


def test_facts_come_from_nodes_and_not_from_names_or_bytes_of_weights(out):
    model = nested_model()
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Identity", ["QMoE"], ["last-token"], "MatMulNBits"))
    onnx.save(model, out / "model.onnx")
    assert dict(drupe_resolve_model(str(out), {}).facts) == {"weights": "float", "logits": "all", "packaged": "no"}
    onnx.save(nested_model(), out / "model.onnx")
    found = drupe_resolve_model(str(out), {})
    assert dict(found.facts) == {"weights": "quantized", "logits": "last", "packaged": "no"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a hole in a file may take room on the disk")
def test_reading_an_outline_skips_weights_in_the_graph(out):
    """The graph has a tensor of 16 GiB, which is a hole in a sparse file."""
    tail = nested_model().SerializeToString()
    with (out / "model.onnx").open("wb") as file:
        size = 1 << 34
        tensor = b"\x4a" + varint(size)
        file.write(b"\x3a" + varint(len(tensor) + size + 1 + len(varint(len(tensor) + size))))
        file.write(b"\x2a" + varint(len(tensor) + size) + tensor)
        file.seek(size, os.SEEK_CUR)
        file.write(tail)
    outline = read_outline(out / "model.onnx")
    assert len(outline.weights) == 3
    assert len(outline.nodes) == 3


def varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])


def test_names_and_sizes_of_element_types_equal_those_of_onnx_ir():
    known = {int(each): each for each in ir.DataType if each != ir.DataType.UNDEFINED}
    assert ELEMENTS.keys() >= known.keys() - {number for number in known if number > 28}
    for number, (name, bits) in ELEMENTS.items():
        if number in known:
            assert name in (known[number].name.lower(), "float32", "float64")
            assert element_name(known[number]) == name
            assert known[number] == ir.DataType.STRING or bits == known[number].bitwidth
