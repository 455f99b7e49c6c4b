"""Attention whose q/k norms are inside the operator, which some devices have and processors do not: the norms apart."""

from __future__ import annotations

from drupe_onnx import ir

OPERATOR, MICROSOFT = "GroupQueryAttention", "com.microsoft"
QUERY_NORM, KEY_NORM = 14, 15  # inputs of the operator


def norms_apart(graph: ir.Graph) -> None:
    """Let nodes before each attention do the RMS norms of query and key that it would do itself; the same values."""
    for node in list(graph):
        if node.op_type == OPERATOR and len(node.inputs) > KEY_NORM and node.inputs[QUERY_NORM] is not None:
            _take_norms_out(node, graph)


def _take_norms_out(node: ir.Node, graph: ir.Graph) -> None:
    query_norm, key_norm = node.inputs[QUERY_NORM], node.inputs[KEY_NORM]
    if query_norm is None or query_norm.shape is None or key_norm is None:
        raise ValueError(f"{node.name}: norms of query and key go together, and have shapes")
    epsilon = node.attributes.pop("qk_norm_epsilon").as_float()
    heads, kv_heads = (node.attributes[name].as_int() for name in ("num_heads", "kv_num_heads"))
    size = query_norm.shape.numpy()[0]
    before = _Before(node, graph)
    query, key, value = node.inputs[:3]
    if query is not None and key is None:
        query, key, value = before.split(query, [heads * size, kv_heads * size, kv_heads * size])
    inputs = [before.normed(query, query_norm, heads, epsilon), before.normed(key, key_norm, kv_heads, epsilon), value]
    node.resize_inputs(QUERY_NORM)
    for place, each in enumerate(inputs):
        node.replace_input_with(place, each)


class _Before:
    """Puts nodes before another one."""

    def __init__(self, node: ir.Node, graph: ir.Graph) -> None:
        self._node, self._graph = node, graph

    def split(self, packed: ir.Value, sizes: list[int]) -> list[ir.Value]:
        """The parts of the last axis."""
        split = ir.node("Split", [packed, self._integers("sizes", sizes)], {"axis": -1}, num_outputs=len(sizes))
        self._graph.insert_before(self._node, split)
        return list(split.outputs)

    def normed(self, x: ir.Value | None, weight: ir.Value, heads: int, epsilon: float) -> ir.Value:
        """Each head's RMS norm: [batch, sequence, heads * head_dim] by way of a shape with the heads apart."""
        apart = self._reshaped(x, f"{weight.name}.apart", [0, 0, heads, -1])
        attributes = {"axis": -1, "epsilon": epsilon, "stash_type": 1}
        norm = ir.node("SimplifiedLayerNormalization", [apart, weight], attributes)
        self._graph.insert_before(self._node, norm)
        return self._reshaped(norm.outputs[0], f"{weight.name}.joined", [0, 0, -1])

    def _reshaped(self, x: ir.Value | None, name: str, shape: list[int]) -> ir.Value:
        node = ir.node("Reshape", [x, self._integers(name, shape)])
        self._graph.insert_before(self._node, node)
        return node.outputs[0]

    def _integers(self, name: str, values: list[int]) -> ir.Value:
        value = ir.Value(name=f"{self._node.name}/{name}", const_value=ir.tensor(values, dtype=ir.DataType.INT64))
        self._graph.register_initializer(value)
        return value
