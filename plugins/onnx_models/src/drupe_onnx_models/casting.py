"""Casting a graph to the element type that a target computes in, and the types that its matrices are stored in.

Nothing is computed here: weights are cast when they are written, or by a Cast in the graph if they are stored in
another type than the graph computes in.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from drupe_nbits import Site, find_sites
from drupe_nbits.sites import FLOATS
from drupe_onnx import Array, Cast, Expression, LazyWeight, element_name, expression_of, graphs_of, ir
from drupe_onnx.editing import Tape, remove_unused, shared_initializer

FLOAT_TYPES = {element_name(dtype): dtype for dtype in FLOATS}
QUANTIZED = {"MatMulNBits": (2, 3), "GatherBlockQuantized": (2, 3)}
"""Operators on blocks of n bits, and the places of their scales and zero points."""
TYPES = ("to", "dtype", "output_dtype")
"""Attributes that hold the element type of a node's output."""


def computed_in(graph: ir.Graph) -> ir.DataType | None:
    """The type that a graph mostly computes in: that of its products, or else of its inputs and outputs."""
    weights: Counter[ir.DataType] = Counter()
    for site in find_sites(graph):
        weights[site.dtype] += site.rows.size
    for node in graph:
        if node.op_type in QUANTIZED and node.outputs[0].dtype in FLOATS:
            weights[node.outputs[0].dtype] += 1
    if not weights:
        weights.update(value.dtype for value in [*graph.inputs, *graph.outputs] if value.dtype in FLOATS)
    return weights.most_common(1)[0][0] if weights else None


def cast_graph(model: ir.Model, own: ir.DataType, wanted: ir.DataType) -> None:
    """Let a graph compute in `wanted` everything that it computes in `own`, including its inputs and outputs."""
    for graph in graphs_of(model):
        for value in [*graph.inputs, *graph.initializers.values(), *(out for node in graph for out in node.outputs)]:
            _retype(value, own, wanted)
        for node in list(graph):
            _retype_attributes(node, own, wanted)
    drop_needless_casts(model)


def _retype(value: ir.Value, own: ir.DataType, wanted: ir.DataType) -> None:
    if value.dtype != own or not isinstance(value.type, ir.TensorType | None):
        return
    value.type = ir.TensorType(wanted)
    if (expression := expression_of(value)) is not None:
        value.const_value = LazyWeight(value.name, cast(_within(expression, wanted), wanted))


def _within(expression: Expression, dtype: ir.DataType) -> Expression:
    """`expression`; a single number too large for float16, such as a mask's, becomes the largest float16."""
    if dtype != ir.DataType.FLOAT16 or not isinstance(expression, Array) or expression.size != 1:
        return expression
    largest = np.finfo(np.float16).max
    return Array(np.clip(expression.values, -largest, largest))


def _retype_attributes(node: ir.Node, own: ir.DataType, wanted: ir.DataType) -> None:
    for name, held in list(node.attributes.items()):
        if name in TYPES and held.type == ir.AttributeType.INT and held.as_int() == int(own):
            node.attributes[name] = ir.AttrInt64(name, int(wanted))
        elif held.type == ir.AttributeType.TENSOR and held.as_tensor().dtype == own:
            values: Any = np.asarray(held.as_tensor().numpy()).astype(wanted.numpy())
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(values, dtype=wanted))


def drop_needless_casts(model: ir.Model) -> None:
    """Remove every Cast that changes nothing."""
    for graph in graphs_of(model):
        for node in list(graph):
            _drop_needless_cast(node)


def _drop_needless_cast(node: ir.Node) -> None:
    """Remove a Cast to the type that its input has."""
    given, made = (node.inputs[0] if node.inputs else None), node.outputs[0]
    if node.op_type != "Cast" or given is None or given.dtype is None or made.is_graph_output():
        return
    if given.dtype == ir.DataType(node.attributes["to"].as_int()):
        made.replace_all_uses_with(given)
        assert node.graph is not None
        node.graph.remove(node, safe=True)


def cast(expression: Expression, dtype: ir.DataType) -> Expression:
    """`expression` in another type. An expression that was widened before is not cast twice."""
    if isinstance(expression, Cast) and expression.source.dtype == dtype:
        return expression.source
    return expression if expression.dtype == dtype else Cast(expression, dtype)


# What matrices are stored in


def store_matrices(model: ir.Model, weights: ir.DataType | None) -> None:
    """Store the float matrices of a graph in `weights`, or each in the type that it has in the source."""
    storing = _Storing(model.graph)
    for site in find_sites(model.graph):
        dtype = weights or site.rows.dtype
        if dtype != site.weight.dtype:
            storing.store_matrix(site, dtype)
    remove_unused(model)


def store_scales(model: ir.Model) -> None:
    """Store scales of quantized matrices in the type that they have in the source, and add a Cast."""
    storing = _Storing(model.graph)
    for node in list(model.graph):
        for place in QUANTIZED.get(node.op_type, ()):
            scales = node.inputs[place] if place < len(node.inputs) else None
            expression = expression_of(scales) if scales is not None and scales.is_initializer() else None
            if scales is not None and isinstance(expression, Cast) and expression.source.dtype in FLOATS:
                stored = shared_initializer(model.graph, f"{scales.name}_stored", expression.source)
                node.replace_input_with(place, storing.cast(stored, expression.dtype, node))
    remove_unused(model)


class _Storing:
    """Stores weights of one graph in another type than the graph computes in."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph

    def store_matrix(self, site: Site, dtype: ir.DataType) -> None:
        """Store the matrix of a site in `dtype`; equal ones in one type are stored once."""
        name = f"{site.weight.name}_{element_name(dtype)}"
        value = shared_initializer(self._graph, name, cast(site.matrix, dtype))
        if site.is_look_up:
            self._look_up(site, value)
        else:
            site.node.replace_input_with(1, self.cast(value, site.dtype, site.node))

    def _look_up(self, site: Site, table: ir.Value) -> None:
        """Cast rows after they have been looked up: a cast of the whole table would take its memory in each run."""
        site.node.replace_input_with(0, table)
        rows = site.node.outputs[0]
        wanted = site.dtype
        if rows is not site.result:  # a Cast is there already
            rows.type = ir.TensorType(table.dtype or wanted)
            return
        if table.dtype == wanted:
            return
        node = ir.node("Cast", [rows], {"to": wanted}, name=f"{site.node.name}/Cast")
        made = node.outputs[0]
        made.type, made.shape = ir.TensorType(wanted), rows.shape
        self._graph.insert_after(site.node, node)
        ir.convenience.replace_all_uses_with(rows, made, replace_graph_outputs=True)
        node.replace_input_with(0, rows)
        made.name, rows.name = rows.name, f"{rows.name}_stored"
        rows.type = ir.TensorType(table.dtype or wanted)

    def cast(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        """`value` in `dtype`; all users of the same type share one Cast."""
        if value.dtype == dtype:
            return value
        for user in value.consumers():
            if user.op_type == "Cast" and user.outputs[0].dtype == dtype:
                return user.outputs[0]
        tape = Tape()
        made = tape.node("Cast", [value], f"{value.name}/Cast", dtype, value.shape, {"to": dtype})
        self._graph.insert_before(before, tape.nodes)
        return made
