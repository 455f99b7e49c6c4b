"""Unpacking undoes packing, and MatMulNBits multiplies with the same values that dequantizing gives."""

import numpy as np
import pytest
from blockquant_cases import random_rows

from drupe_blockquant import (
    Scheme,
    dequantize_rows,
    pack_levels,
    pack_zero_points,
    quantize_rows,
    unpack_levels,
    unpack_zero_points,
)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_unpacking_undoes_packing(bits):
    levels = np.random.default_rng(0).integers(0, 1 << bits, (3, 5, 32), np.uint8)
    packed = pack_levels(levels, bits)
    assert packed.shape == (3, 5, 32 * bits // 8)
    np.testing.assert_array_equal(unpack_levels(packed, bits), levels)
    zeros = levels[:, :, 0]
    np.testing.assert_array_equal(unpack_zero_points(pack_zero_points(zeros, bits), bits, 5), zeros)


def test_the_first_level_is_in_the_low_bits_of_a_byte():
    assert pack_levels(np.array([[1, 2]], np.uint8), 4).tolist() == [[0x21]]
    assert pack_levels(np.array([[1, 2, 3, 0]], np.uint8), 2).tolist() == [[0b00111001]]
    assert pack_zero_points(np.array([[3]], np.uint8), 4).tolist() == [[0x83]]


def test_levels_that_do_not_fill_whole_bytes_are_refused():
    with pytest.raises(ValueError, match="whole bytes"):
        pack_levels(np.zeros((1, 3), np.uint8), 4)


@pytest.mark.parametrize("k", [64, 100])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_matmulnbits_multiplies_with_the_dequantized_rows(bits, symmetric, k):
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    scheme = Scheme(bits, 32, symmetric, "search")
    n = 48
    result = quantize_rows(random_rows(n, k), scheme)
    arrays = {"B": result.packed, "scales": result.scales}
    if result.zero_points is not None:
        arrays["zero_points"] = result.zero_points
    helper = onnx.helper
    node = helper.make_node(
        "MatMulNBits",
        ["A", *arrays],
        ["Y"],
        domain="com.microsoft",
        K=k,
        N=n,
        bits=bits,
        block_size=32,
        accuracy_level=0,
    )
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("A", onnx.TensorProto.FLOAT, [None, k])],
        [helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, [None, n])],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    a = np.random.default_rng(1).normal(size=(3, k)).astype(np.float32)
    expected = a @ dequantize_rows(result, scheme, k).T
    np.testing.assert_allclose(session.run(None, {"A": a})[0], expected, rtol=1e-4, atol=1e-5)
