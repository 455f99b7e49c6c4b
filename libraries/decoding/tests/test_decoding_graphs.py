"""The ports of graphs that onnx_ir holds."""

from __future__ import annotations

import pytest

from drupe.api import ModelError
from drupe_decoding import CacheSizes, DecoderPorts, Port, cache_sizes, decoder_ports, port_of, vocabulary_size
from drupe_onnx import ir

HEADS, KV_HEADS, SIZE = 6, 2, 8


def attention(packed: bool) -> tuple[ir.Graph, ir.Value]:
    """A graph of one attention whose cache has no sizes, and the cache."""
    features = SIZE * (HEADS + 2 * KV_HEADS * packed)
    query = ir.Value(name="query", shape=ir.Shape(["b", "s", features]), type=ir.TensorType(ir.DataType.FLOAT))
    tokens = ir.Value(name="input_ids", shape=ir.Shape(["b", "s"]), type=ir.TensorType(ir.DataType.INT64))
    open_shape = ir.Shape(["b", "heads", "past", "size"])
    key, value = (
        ir.Value(name=f"past_key_values.0.{part}", shape=open_shape, type=ir.TensorType(ir.DataType.FLOAT16))
        for part in ("key", "value")
    )
    inputs = [query, None, None] if packed else [query, query, query]
    node = ir.node(
        "GroupQueryAttention",
        [*inputs, key, value],
        {"num_heads": HEADS, "kv_num_heads": KV_HEADS},
        domain="com.microsoft",
        num_outputs=3,
    )
    for output, name in zip(node.outputs, ("logits", "present.0.key", "present.0.value"), strict=True):
        output.name = name
    return ir.Graph([tokens, key, value], node.outputs, nodes=[node], opset_imports={"": 21}), key


def test_a_port_has_name_type_and_sizes_of_its_value() -> None:
    value = ir.Value(name="x", shape=ir.Shape(["batch", 3]), type=ir.TensorType(ir.DataType.BFLOAT16))
    port = port_of(value)
    assert (port.name, port.element_type, port.size(0), port.size(1)) == ("x", "bfloat16", None, 3)
    assert port_of(ir.Value(name="y")).element_type is None


def test_a_graphs_ports_are_found() -> None:
    graph, _ = attention(packed=False)
    ports = decoder_ports(graph)
    assert list(ports.plain) == ["input_ids"]
    assert ports.outputs == ["logits", "present.0.key", "present.0.value"]


@pytest.mark.parametrize("packed", [False, True])
def test_the_sizes_of_a_cache_come_from_the_attention_that_reads_it(packed: bool) -> None:
    _, cache = attention(packed)
    assert cache_sizes(cache) == CacheSizes(KV_HEADS, SIZE)


def test_a_cache_that_no_node_reads_has_unknown_sizes() -> None:
    assert cache_sizes(ir.Value(name="past_key_0")) == CacheSizes()


def test_the_size_of_the_vocabulary_is_that_of_the_logits() -> None:
    assert vocabulary_size(DecoderPorts({}, [], Port("logits", "float32", ("b", "s", 300)))) == 300
    with pytest.raises(ModelError, match="how many logits"):
        vocabulary_size(DecoderPorts({}, [], Port("logits", "float32", ("b", "s", "v"))))
