"""Editing graphs: recorded nodes have types, equal constants share an initializer, unused ones are removed."""

from __future__ import annotations

import numpy as np
import pytest

from drupe_onnx import (
    Array,
    Cast,
    Reshape,
    Tape,
    all_logits,
    as_type,
    constant_of,
    initializer,
    initializers_of,
    ir,
    remove_unused,
    shared_initializer,
    weight_bytes,
)

FLOAT, BFLOAT16 = ir.DataType.FLOAT, ir.DataType.BFLOAT16
TEXT = "g (float[n, 4] x) => (float[n, 4] y) { h = Relu(x)  y = Neg(h)  unused = Abs(h)  more = Neg(unused) }"


@pytest.fixture
def model() -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]>\n{TEXT}')


def test_a_recorded_node_has_a_name_metadata_and_a_typed_output(model: ir.Model) -> None:
    (x,) = model.graph.inputs
    tape = Tape({"block": "3"})
    value = tape.node("Cast", [x], "narrow", BFLOAT16, x.shape, {"to": BFLOAT16}, marks={"role": "a"})
    (node,) = tape.nodes
    assert (node.name, dict(node.metadata_props)) == ("narrow", {"block": "3", "role": "a"})
    assert node.attributes["to"].as_int() == int(BFLOAT16)
    assert (value.name, value.dtype, value.shape) == ("narrow/output_0", BFLOAT16, x.shape)
    assert node.graph is None


def test_an_output_that_is_left_out_has_no_name() -> None:
    x = ir.val("x", FLOAT, [2, 4])
    first, second = Tape().node_of_several("Norm", [x], "norm", [(FLOAT, [2, 4]), None], {"axis": -1})
    assert (first.name, first.shape, second.name) == ("norm/output_0", ir.Shape([2, 4]), "")


def test_equal_constants_share_an_initializer_and_others_get_a_number(model: ir.Model) -> None:
    ones = Array(np.ones(4, np.float32))
    first = shared_initializer(model.graph, "scale", ones)
    assert shared_initializer(model.graph, "scale", Array(np.ones(4, np.float32))) is first
    other = shared_initializer(model.graph, "scale", Array(np.zeros(4, np.float32)))
    assert (first.name, other.name) == ("scale", "scale_2")
    assert shared_initializer(model.graph, "scale", Array(np.zeros(4, np.float32))) is other
    assert list(model.graph.initializers) == ["scale", "scale_2"]


def test_nodes_and_initializers_that_no_output_depends_on_are_removed(model: ir.Model) -> None:
    shared_initializer(model.graph, "left", Array(np.ones(4, np.float32)))
    remove_unused(model)
    assert [node.op_type for node in model.graph] == ["Relu", "Neg"]
    assert not model.graph.initializers
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_constant_of_looks_through_a_cast(model: ir.Model) -> None:
    stored = shared_initializer(model.graph, "w", Array(np.ones((4, 4), BFLOAT16.numpy())))
    tape = Tape()
    cast = tape.node("Cast", [stored], "w/Cast", FLOAT, stored.shape, {"to": FLOAT})
    model.graph.insert_before(model.graph[0], tape.nodes)
    assert constant_of(cast) == Cast(constant_of(stored), FLOAT)
    assert constant_of(model.graph.inputs[0]) is None
    assert constant_of(model.graph[1].outputs[0]) is None
    assert constant_of(None) is None


def test_as_type_adds_a_cast_only_for_another_type() -> None:
    ones = Array(np.ones(4, np.float32))
    assert as_type(ones, FLOAT) is ones
    assert as_type(ones, BFLOAT16) == Cast(ones, BFLOAT16)


def test_two_initializers_with_the_same_tensor_count_its_bytes_once(model: ir.Model) -> None:
    matrix = Array(np.arange(16, dtype=np.float32).reshape(4, 4))
    texts = ir.tensor(["a", "bc"], name="texts")
    for value in (
        initializer("matrix", matrix),
        initializer("again", Array(matrix.values)),
        initializer("as_vector", Reshape(matrix, (16,))),
        initializer("other", Array(matrix.values + 1)),
        ir.val("texts", const_value=texts),
    ):
        model.graph.register_initializer(value)
    assert weight_bytes(initializers_of(model)) == 2 * 16 * 4 + texts.nbytes


def test_the_all_logits_twin_keeps_no_unused_nodes_or_initializers() -> None:
    text = (
        "g (float[b, n, 4] x, int64[b, 1, 1] at) => (float[b, 1, 4] y) "
        "{ last = GatherND <batch_dims = 1> (x, at)  y = Neg(last) }"
    )
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]>\n{text}')
    model.graph[0].metadata_props["drupe.role"] = "last-token"
    index = shared_initializer(model.graph, "index", Array(np.zeros((1, 1, 1), np.int64)))
    model.graph[0].replace_input_with(1, index)
    twin = all_logits(model)
    assert [node.op_type for node in twin.graph] == ["Neg"]
    assert not twin.graph.initializers
    assert len(model.graph) == 2 and "index" in model.graph.initializers
