"""The CPU table agrees with onnxruntime: each node is also run there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from drupe_ep_cpu.provider import Cpu
from drupe_onnx import OperatorUse

np = pytest.importorskip("numpy")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TABLE = Cpu().capabilities(onnxruntime.__version__)
MS = "com.microsoft"
WIDTH, ROWS, HEAD, HEADS, KV_HEADS, LENGTH = 256, 32, 16, 4, 2, 3


def runs(name: str, domain: str, feeds: Mapping[str, Any], outputs: int, attributes: Mapping[str, Any]) -> bool:
    """Whether a graph of one node runs. A feed that is None is left out."""
    helper = onnx.helper
    given = {key: array for key, array in feeds.items() if array is not None}
    results = [f"out{index}" for index in range(outputs)]
    node = helper.make_node(name, [key if key in given else "" for key in feeds], results, domain=domain, **attributes)
    inputs = [
        helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for key, array in given.items()
    ]
    graph = helper.make_graph([node], "one", inputs, [onnx.ValueInfoProto(name=result) for result in results])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        session.run(None, given)
    except Exception:  # onnxruntime has an exception class for each status code
        return False
    return True


def said(name: str, domain: str, feeds: Mapping[str, Any], attributes: Mapping[str, Any]) -> bool:
    types = tuple("" if array is None else str(array.dtype) for array in feeds.values())
    return TABLE.serves(OperatorUse(domain, name, 1 if domain else 21, types, attributes=attributes))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("block", [8, 16, 24, 64, 256])
@pytest.mark.parametrize("zero_points", [None, "uint8", "float32"])
def test_the_table_agrees_with_onnxruntime_on_matmulnbits(bits: int, block: int, zero_points: str | None) -> None:
    blocks = -(-WIDTH // block)
    packed = -(-blocks * bits // 8)
    feeds = {
        "a": np.ones((1, WIDTH), np.float32),
        "b": np.zeros((ROWS, blocks, -(-block * bits // 8)), np.uint8),
        "scales": np.ones((ROWS, blocks), np.float32),
        "zero": zero_points and np.zeros((ROWS, packed if zero_points == "uint8" else blocks), zero_points),
    }
    attributes = {"K": WIDTH, "N": ROWS, "bits": bits, "block_size": block, "accuracy_level": 4}
    assert said("MatMulNBits", MS, feeds, attributes) == runs("MatMulNBits", MS, feeds, 1, attributes)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_the_table_agrees_with_onnxruntime_on_gatherblockquantized(bits: int, axes: tuple[int, int]) -> None:
    feeds = {
        "table": np.zeros((ROWS, WIDTH * bits // 8), np.uint8),
        "ids": np.zeros((1, LENGTH), np.int64),
        "scales": np.ones((ROWS, WIDTH // 32), np.float32),
    }
    attributes = {"bits": bits, "block_size": 32, "gather_axis": axes[0], "quantize_axis": axes[1]}
    assert said("GatherBlockQuantized", MS, feeds, attributes) == runs("GatherBlockQuantized", MS, feeds, 1, attributes)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("norms", [True, False])
def test_the_table_agrees_with_onnxruntime_on_attention(packed: bool, norms: bool) -> None:
    keys = np.ones((1, LENGTH, KV_HEADS * HEAD), np.float32)
    rotary = np.ones((8, HEAD // 2), np.float32)
    past = np.zeros((1, KV_HEADS, 0, HEAD), np.float32)
    feeds = {
        "q": np.ones((1, LENGTH, (HEADS + 2 * KV_HEADS * packed) * HEAD), np.float32),
        "k": None if packed else keys,
        "v": None if packed else keys,
        "past_k": past,
        "past_v": past,
        "lengths": np.array([LENGTH - 1], np.int32),
        "total": np.array(LENGTH, np.int32),
        "cos": rotary,
        "sin": rotary,
    }
    if norms:
        feeds |= dict.fromkeys(("positions", "bias", "sink", "k_scale", "v_scale"))
        feeds |= {"q_norm": np.ones(HEAD, np.float32), "k_norm": np.ones(HEAD, np.float32)}
    attributes = {"num_heads": HEADS, "kv_num_heads": KV_HEADS, "do_rotary": 1}
    assert said("GroupQueryAttention", MS, feeds, attributes) == runs("GroupQueryAttention", MS, feeds, 3, attributes)


@pytest.mark.parametrize("name", ["CastLike", "HardSwish", "Mish"])
def test_the_table_agrees_with_onnxruntime_on_operators_that_it_replaces(name: str) -> None:
    feeds = {"x": np.ones(4, np.float32)} | ({"y": np.ones(4, np.float32)} if name == "CastLike" else {})
    assert said(name, "", feeds, {})
    assert runs(name, "", feeds, 1, {})
