"""The activation functions of a gated MLP, by the names that config.json uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from drupe_model_builder.dimensions import Dims
    from drupe_model_builder.graph import GraphBuilder


def _silu(graph: GraphBuilder, x: ir.Value, name: str, shape: Dims) -> ir.Value:
    gate = graph.node("Sigmoid", [x], f"{name}/Sigmoid", shape)
    return graph.node("Mul", [x, gate], f"{name}/Mul", shape)


def _gelu(graph: GraphBuilder, x: ir.Value, name: str, shape: Dims) -> ir.Value:
    return graph.node("Gelu", [x], f"{name}/Gelu", shape, approximate="none")


def _gelu_tanh(graph: GraphBuilder, x: ir.Value, name: str, shape: Dims) -> ir.Value:
    return graph.node("Gelu", [x], f"{name}/Gelu", shape, approximate="tanh")


def _relu(graph: GraphBuilder, x: ir.Value, name: str, shape: Dims) -> ir.Value:
    return graph.node("Relu", [x], f"{name}/Relu", shape)


def _relu_squared(graph: GraphBuilder, x: ir.Value, name: str, shape: Dims) -> ir.Value:
    positive = graph.node("Relu", [x], f"{name}/Relu", shape)
    return graph.node("Mul", [positive, positive], f"{name}/Square", shape)


ACTIVATIONS: Mapping[str, Callable[[GraphBuilder, ir.Value, str, Dims], ir.Value]] = {
    "silu": _silu,
    "swish": _silu,
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": _relu,
    "relu2": _relu_squared,
}
