"""Moving q/k norms out of the attention operator: CPUs do not compute them inside it, some other devices do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drupe_onnx import Array, Tape, ir, shared_initializer

OPERATOR = "GroupQueryAttention"
QUERY_NORM, KEY_NORM = 14, 15  # inputs of the operator


def norms_apart(graph: ir.Graph) -> None:
    """Replace the RMS norms of query and key inside each attention by nodes before it that give the same values."""
    for node in list(graph):
        if node.op_type == OPERATOR and len(node.inputs) > KEY_NORM and node.inputs[QUERY_NORM] is not None:
            _take_norms_out(node, graph)


def _take_norms_out(node: ir.Node, graph: ir.Graph) -> None:
    query_norm, key_norm = node.inputs[QUERY_NORM], node.inputs[KEY_NORM]
    if query_norm is None or query_norm.shape is None or key_norm is None:
        raise ValueError(f"{node.name}: query and key must both have norms, and the norms must have shapes")
    epsilon = node.attributes.pop("qk_norm_epsilon").as_float()
    heads, kv_heads = (node.attributes[name].as_int() for name in ("num_heads", "kv_num_heads"))
    size = query_norm.shape.numpy()[0]
    before = _Before(node.name or OPERATOR, graph)
    query, key, value = node.inputs[:3]
    if query is not None and key is None:
        query, key, value = before.split(query, [heads * size, kv_heads * size, kv_heads * size])
    inputs = [before.normed(query, query_norm, heads, epsilon), before.normed(key, key_norm, kv_heads, epsilon), value]
    graph.insert_before(node, before.tape.nodes)
    node.resize_inputs(QUERY_NORM)
    for place, each in enumerate(inputs):
        node.replace_input_with(place, each)


class _Before:
    """The nodes to put before an attention, on a tape. name: the attention's."""

    def __init__(self, name: str, graph: ir.Graph) -> None:
        self.tape = Tape()
        self._name, self._graph = name, graph

    def split(self, packed: ir.Value, sizes: list[int]) -> Sequence[ir.Value]:
        """The parts of the last axis."""
        inputs = [packed, self._integers("sizes", sizes)]
        outputs = [(packed.dtype, None) for _ in sizes]
        return self.tape.node_of_several("Split", inputs, f"{self._name}/Split", outputs, {"axis": -1})

    def normed(self, x: ir.Value | None, weight: ir.Value, heads: int, epsilon: float) -> ir.Value:
        """Each head's RMS norm of [batch, sequence, heads * head_dim], which is reshaped to separate the heads."""
        apart = self._reshaped(x, f"{weight.name}.apart", [0, 0, heads, -1], weight)
        attributes = {"axis": -1, "epsilon": epsilon, "stash_type": 1}
        name = f"{self._name}/{weight.name}.normed"
        normed = self.tape.node("SimplifiedLayerNormalization", [apart, weight], name, weight.dtype, None, attributes)
        return self._reshaped(normed, f"{weight.name}.joined", [0, 0, -1], weight)

    def _reshaped(self, x: ir.Value | None, name: str, shape: list[int], weight: ir.Value) -> ir.Value:
        return self.tape.node("Reshape", [x, self._integers(name, shape)], f"{self._name}/{name}", weight.dtype)

    def _integers(self, name: str, values: list[int]) -> ir.Value:
        return shared_initializer(self._graph, f"{self._name}/{name}", Array(np.array(values, np.int64)))
