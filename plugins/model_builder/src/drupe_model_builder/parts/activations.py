"""Activation functions of MLPs, by the names that config.json uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import dims

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


class Xielu(Record):
    """xIELU, https://arxiv.org/abs/2411.13010: an activation with four scalars of its own. name: their prefix."""

    name: str

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        yield f"{self.name}.alpha_p", (1,)
        yield f"{self.name}.alpha_n", (1,)
        yield f"{self.name}.beta", ()
        yield f"{self.name}.eps", ()


def activate(graph: GraphBuilder, activation: str | Xielu, x: ir.Value, name: str) -> ir.Value:
    """The activation of x, of the same shape. name: the prefix of the nodes."""
    if isinstance(activation, Xielu):
        return _xielu(graph, activation, x, name)
    return ACTIVATIONS[activation](graph, x, name)


def _silu(graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    gate = graph.node("Sigmoid", [x], f"{name}/Sigmoid", dims(x))
    return graph.node("Mul", [x, gate], f"{name}/Mul", dims(x))


def _gelu(graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    """x / 2 * (1 + erf(x / sqrt(2)))."""
    made = _gelu_of_operator(graph, x, name, "none", "Gelu")
    if made is not None:
        return made
    inner = graph.node("Mul", [x, graph.number(math.sqrt(0.5))], f"{name}/Inner", dims(x))
    return _half_opened(graph, x, graph.node("Erf", [inner], f"{name}/Erf", dims(x)), name)


def _gelu_tanh(graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""
    made = _gelu_of_operator(graph, x, name, "tanh", "FastGelu")
    if made is not None:
        return made
    shape = dims(x)
    square = graph.node("Mul", [x, x], f"{name}/Square", shape)
    bent = graph.node("Mul", [square, graph.number(0.044715 * math.sqrt(2 / math.pi))], f"{name}/Bent", shape)
    slope = graph.node("Add", [bent, graph.number(math.sqrt(2 / math.pi))], f"{name}/Slope", shape)
    inner = graph.node("Mul", [x, slope], f"{name}/Inner", shape)
    return _half_opened(graph, x, graph.node("Tanh", [inner], f"{name}/Tanh", shape), name)


def _gelu_of_operator(graph: GraphBuilder, x: ir.Value, name: str, approximate: str, older: str) -> ir.Value | None:
    """ONNX's operator, or onnxruntime's own, which is `older`; None where the target has neither."""
    from drupe_onnx import MICROSOFT

    if graph.serves("Gelu", graph.dtype, outputs=[graph.dtype], approximate=approximate):
        return graph.node("Gelu", [x], f"{name}/Gelu", dims(x), approximate=approximate)
    if graph.serves(older, graph.dtype, domain=MICROSOFT, outputs=[graph.dtype]):
        return graph.node(older, [x], f"{name}/{older}", dims(x), domain=MICROSOFT)
    return None


def _half_opened(graph: GraphBuilder, x: ir.Value, gate: ir.Value, name: str) -> ir.Value:
    """x / 2 * (1 + gate)."""
    opened = graph.node("Add", [gate, graph.number(1.0)], f"{name}/Opened", dims(x))
    half = graph.node("Mul", [x, graph.number(0.5)], f"{name}/Half", dims(x))
    return graph.node("Mul", [half, opened], f"{name}/Gated", dims(x))


def _relu(graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    return graph.node("Relu", [x], f"{name}/Relu", dims(x))


def _relu_squared(graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    positive = _relu(graph, x, name)
    return graph.node("Mul", [positive, positive], f"{name}/Square", dims(x))


ACTIVATIONS: Mapping[str, Callable[[GraphBuilder, ir.Value, str], ir.Value]] = {
    "silu": _silu,
    "swish": _silu,
    "gelu": _gelu,
    "gelu_python": _gelu,
    "gelu_fast": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": _relu,
    "relu2": _relu_squared,
}


def _xielu(graph: GraphBuilder, part: Xielu, x: ir.Value, name: str) -> ir.Value:
    """a x^2 + beta x for positive x, b (exp(min(x, eps)) - 1 - x) + beta x for others.

    a is softplus(alpha_p), and b is beta + softplus(alpha_n).
    """
    from drupe_onnx import ir

    shape, one = dims(x), [1]
    alpha_p, alpha_n, beta, eps = (graph.vector(tensor) for tensor, _ in part.tensors())
    a = graph.node("Softplus", [alpha_p], f"{name}/A", one)
    b = graph.node("Softplus", [alpha_n], f"{name}/Softplus", one)
    b = graph.node("Add", [b, beta], f"{name}/B", one)
    square = graph.node("Mul", [x, x], f"{name}/Square", shape)
    positive = graph.node("Mul", [square, a], f"{name}/Positive", shape)
    small = graph.node("Min", [x, eps], f"{name}/Min", shape)
    grown = graph.node("Exp", [small], f"{name}/Exp", shape)
    grown = graph.node("Sub", [grown, graph.number(1.0)], f"{name}/Expm1", shape)
    bent = graph.node("Sub", [grown, x], f"{name}/Bent", shape)
    negative = graph.node("Mul", [bent, b], f"{name}/Negative", shape)
    above = graph.node("Greater", [x, graph.number(0.0)], f"{name}/Above", shape, dtype=ir.DataType.BOOL)
    chosen = graph.node("Where", [above, positive, negative], f"{name}/Where", shape)
    linear = graph.node("Mul", [x, beta], f"{name}/Linear", shape)
    return graph.node("Add", [chosen, linear], f"{name}/Add", shape)
