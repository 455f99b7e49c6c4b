"""Upgrading graphs of old opsets to an opset whose nodes the passes write."""

from __future__ import annotations

import onnx

from drupe.api import ModelError
from drupe_onnx import ir

LEAST, WANTED = 13, 17
"""Opsets. Passes add nodes with axes as inputs and casts of bfloat16, which need 13; 17 has LayerNormalization."""
LARGE = 1 << 10
"""Bytes. Larger initializers are weights, which are kept out of the conversion."""


def upgrade(model: ir.Model) -> ir.Model:
    """The model in an opset of at least LEAST. Raises ModelError for a model that cannot be converted.

    onnx converts graphs in memory and does not support lazy weights, so weights are replaced by inputs meanwhile.
    """
    opset = model.opset_imports.get("", LEAST)
    if opset >= LEAST:
        return model
    graph = model.graph
    weights = {name: value for name, value in graph.initializers.items() if _is_large(value)}
    aside = model.clone()
    for name in weights:
        value = aside.graph.initializers.pop(name)
        value.const_value = None
        if value not in aside.graph.inputs:
            aside.graph.inputs.append(value)
    try:
        converted = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(aside), WANTED))
    except Exception as error:  # the converter raises plain exceptions
        raise ModelError(
            f"the graph is of opset {opset}, and onnx cannot convert it to {WANTED}: {error}",
            cure=f"export the model again, with opset_version={WANTED} or later",
        ) from error
    _put_back(converted.graph, weights)
    converted.metadata_props.update(model.metadata_props)
    return converted


def _is_large(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.nbytes > LARGE


def _put_back(graph: ir.Graph, weights: dict[str, ir.Value]) -> None:
    """Replace the inputs that stand for weights by initializers again."""
    for value in [value for value in graph.inputs if value.name in weights]:
        graph.inputs.remove(value)
        value.const_value = weights[value.name or ""].const_value
        graph.register_initializer(value)
