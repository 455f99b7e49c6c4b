"""The ports of graphs that onnx_ir holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import ModelError
from drupe_decoding.ports import CacheSizes, DecoderPorts, Port

if TYPE_CHECKING:
    from drupe_onnx import DecoderDescription, ir


def decoder_ports(graph: ir.Graph) -> DecoderPorts:
    """Which input and output of a graph is which. Raises ModelError for a graph that is not a decoder."""
    required = (value for value in graph.inputs if not value.is_initializer())
    return DecoderPorts.of(map(port_of, required), map(port_of, graph.outputs))


def port_of(value: ir.Value) -> Port:
    """An input or output of a graph."""
    element = None if value.dtype is None else value.dtype.numpy().name
    return Port(value.name or "", element, None if value.shape is None else tuple(value.shape))


def cache_sizes(cache: ir.Value, description: DecoderDescription | None = None) -> CacheSizes:
    """The sizes that a cache's shape may leave open, from the decoder's description or the attention that reads it.

    Attention has the number of heads as an attribute. The features of its query, [batch, sequence, features], give the
    size of a head: they hold num_heads heads, and 2 * kv_num_heads more if key and value are packed with the query.
    """
    if description is not None:
        return CacheSizes(description.kv_heads, description.head_dim)
    for node in cache.consumers():
        if "num_heads" not in node.attributes or "kv_num_heads" not in node.attributes:
            continue
        heads, kv_heads = (node.attributes[name].as_int() for name in ("num_heads", "kv_num_heads"))
        query, packed = node.inputs[0], len(node.inputs) < 2 or node.inputs[1] is None
        features = query.shape[-1] if query is not None and query.shape is not None else None
        size = features // (heads + 2 * kv_heads * packed) if isinstance(features, int) else None
        return CacheSizes(kv_heads, size)
    return CacheSizes()


def vocabulary_size(ports: DecoderPorts, description: DecoderDescription | None = None) -> int:
    """How many logits a token has. Raises ModelError where neither graph nor description gives the number."""
    size = ports.logits.size(2) or (description.vocab_size if description else None)
    if size is None:
        raise ModelError("the graph does not say how many logits a token has")
    return size
