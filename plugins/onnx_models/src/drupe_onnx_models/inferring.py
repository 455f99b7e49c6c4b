"""Inferring element types and shapes that the exporter of a graph left out."""

from __future__ import annotations

import onnx

from drupe_onnx import ir

LARGE = 1 << 10
"""Bytes. Larger constants are not shapes or axes that other shapes depend on, so their values are not read."""

Known = dict[str, tuple[ir.TypeProtocol | None, ir.Shape | None]]


def complete_types(model: ir.Model) -> None:
    """Fill in missing types and shapes. Fixed sizes that the exporter has written do not change.

    The output of a custom operator is assumed to have the type of its first floating-point input. Inner values get no
    names for sizes that vary: exporters use one name for different sizes, and a runtime would believe the names.
    """
    if _incomplete(model.graph):
        known = _inferred(model)
        for node in model.graph:
            for value in node.outputs:
                _complete(value, node, known)
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None and not value.is_graph_output():
                value.shape = ir.Shape([size if isinstance(size, int) else None for size in value.shape])


def _complete(value: ir.Value, node: ir.Node, known: Known) -> None:
    kind, shape = known.get(value.name or "", (None, None))
    value.type = value.type or kind
    value.shape = shape if value.shape is None else value.shape
    if value.name and value.type is None:
        value.type = _like_inputs(node)


def _incomplete(graph: ir.Graph) -> bool:
    return any(value.name and (value.type is None or value.shape is None) for node in graph for value in node.outputs)


def _inferred(model: ir.Model) -> Known:
    """The values that onnx infers in the main graph, by name."""
    copy = model.clone()
    for value in copy.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > LARGE and tensor.dtype != ir.DataType.STRING:
            shape = ir.Shape(tensor.shape.numpy())
            value.const_value = ir.ExternalTensor(
                "weights", 0, tensor.nbytes, tensor.dtype, shape=shape, name=value.name or ""
            )
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(copy), check_type=False, strict_mode=False, data_prop=True)
    graph = ir.from_proto(proto).graph
    values = [*graph.outputs, *(value for node in graph for value in node.outputs)]
    return {value.name: (value.type, value.shape) for value in values if value.name}


def _like_inputs(node: ir.Node) -> ir.TypeProtocol | None:
    """The type of the first input that is in floating point; otherwise that of the first one."""
    kinds = [value.type for value in node.inputs if value is not None and isinstance(value.type, ir.TensorType)]
    floats = [kind for kind in kinds if kind.dtype.is_floating_point()]
    return next(iter([*floats, *kinds]), None)
