"""Fusing norms: eight operators that exporters write for an RMS norm become one that all passes know.

An RMS norm is x * w / sqrt(mean(x^2) + e). One operator takes the sum in float32, whatever type the graph computes in.
Eight operators in float16 would overflow: the square of 256 is already infinite.
"""

from __future__ import annotations

from drupe.api import Record, Target
from drupe_onnx import ROLE, Files, OperatorUse, Tape, capabilities_of, element_name, expression_of, ir
from drupe_onnx_models.constants import attribute, integers_of

OPERATOR = "SimplifiedLayerNormalization"


class _Norm(Record):
    """An RMS norm. x, weight: its inputs. epsilon: e, which keeps the root above zero. last: the node of its result."""

    x: ir.Value
    weight: ir.Value
    epsilon: float
    last: ir.Node


def fuse_norms(model: ir.Model, target: Target) -> None:
    """Replace each RMS norm that is written as several operators by one operator, if the target has it."""
    graph = model.graph
    for node in list(graph):
        norm = _norm_at(node)
        if norm is not None and _served(norm, graph.opset_imports.get("", 1), target):
            _replace(graph, norm)


def _served(norm: _Norm, opset: int, target: Target) -> bool:
    dtype = norm.x.dtype
    if dtype is None or norm.weight.dtype != dtype or norm.last.outputs[0].dtype != dtype:
        return False
    element = element_name(dtype)
    use = OperatorUse("", OPERATOR, opset, (element, element), (element,), _attributes(norm))
    return capabilities_of(target).serves(use)


def _attributes(norm: _Norm) -> dict[str, int | float]:
    return {"axis": -1, "epsilon": norm.epsilon, "stash_type": 1}


def _replace(graph: ir.Graph, norm: _Norm) -> None:
    old = norm.last.outputs[0]
    tape = Tape({ROLE: "norm"})
    name = norm.last.name or old.name or OPERATOR
    new = tape.node(OPERATOR, [norm.x, norm.weight], f"{name}/RMSNorm", old.dtype, old.shape, _attributes(norm))
    graph.insert_before(norm.last, tape.nodes)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(norm.last, safe=True)


def _norm_at(node: ir.Node) -> _Norm | None:
    """The norm that ends with a node, the product with the norm's weight."""
    if node.op_type != "Mul" or node.domain:
        return None
    for place, other in ((0, 1), (1, 0)):
        weight, normed = node.inputs[place], _before_cast(node.inputs[other])
        if weight is None or not weight.is_initializer() or weight.shape is None or len(weight.shape) != 1:
            continue
        found = None if normed is None else _scaled_by_root(normed.producer())
        if found is not None:
            return _Norm(found[0], weight, found[1], node)
    return None


def _scaled_by_root(node: ir.Node | None) -> tuple[ir.Value, float] | None:
    """x and e, where a node gives x / sqrt(mean(x^2) + e)."""
    if node is None or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    for x, factor in ((first, second), (second, first)):
        root = factor if node.op_type == "Div" and x is first else _inverse(factor) if node.op_type == "Mul" else None
        square = _mean_square(_input_of(root, "Sqrt"))
        if x is not None and square is not None and _before_cast(square[0]) is _before_cast(x):
            return _before_cast(x) or x, square[1]
    return None


def _inverse(value: ir.Value | None) -> ir.Value | None:
    """The value of which another is the reciprocal."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Div" and _number(node.inputs[0]) == 1.0:
        return node.inputs[1]
    return _input_of(value, "Reciprocal")


def _mean_square(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """x and e of mean(x^2) + e over the last axis."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Add":
        return None
    for mean, epsilon in (node.inputs, reversed(node.inputs)):
        number, x = _number(epsilon), _squared(_averaged(mean))
        if number is not None and x is not None:
            return x, number
    return None


def _averaged(value: ir.Value | None) -> ir.Value | None:
    """The value of which another is the mean along the last axis."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "ReduceMean" or attribute(node, "keepdims", 1) != 1:
        return None
    axes = list(node.attributes["axes"].as_ints()) if "axes" in node.attributes else None
    if axes is None and len(node.inputs) > 1:
        axes = integers_of(node.inputs[1])
    given = node.inputs[0]
    rank = len(given.shape) if given is not None and given.shape is not None else None
    return given if axes in ([-1], [rank and rank - 1]) else None


def _squared(value: ir.Value | None) -> ir.Value | None:
    node = value.producer() if value is not None else None
    if node is None or len(node.inputs) != 2:
        return None
    power = node.op_type == "Pow" and _number(node.inputs[1]) == 2.0
    product = node.op_type == "Mul" and node.inputs[0] is node.inputs[1]
    return node.inputs[0] if power or product else None


def _input_of(value: ir.Value | None, operator: str) -> ir.Value | None:
    """The input of the node that makes a value, if the node is of this operator."""
    node = value.producer() if value is not None else None
    return node.inputs[0] if node is not None and node.op_type == operator else None


def _before_cast(value: ir.Value | None) -> ir.Value | None:
    """The value before a Cast; the value itself without one."""
    node = value.producer() if value is not None else None
    return node.inputs[0] if node is not None and node.op_type == "Cast" else value


def _number(value: ir.Value | None) -> float | None:
    """A constant that is one number."""
    expression = expression_of(value) if value is not None and value.is_initializer() else None
    if expression is None or expression.size != 1:
        return None
    with Files() as files:
        return float(expression.value(files).reshape(-1)[0])
