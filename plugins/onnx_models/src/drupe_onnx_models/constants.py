"""Evaluating what a graph computes from constants and from the shapes of other values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drupe_onnx import Files, ir
from drupe_onnx.weights import expression_of

SMALL = 64
"""The most elements of a constant whose values are read; larger constants are weights."""

Size = int | tuple[ir.Value, int]
"""An entry of a shape: a number, or the size of another value along an axis."""


def integers_of(value: ir.Value | None) -> list[int] | None:
    """The elements of a small constant of whole numbers; None for anything else."""
    expression = expression_of(value) if value is not None and value.is_initializer() else None
    if expression is None or expression.size > SMALL or expression.dtype.is_floating_point():
        return None
    with Files() as files:
        return [int(each) for each in np.ravel(expression.value(files))]


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is an initializer, or computed from initializers alone."""
    if value is None or value.is_initializer():
        return value is not None
    node = value.producer()
    given = [] if node is None else [each for each in node.inputs if each is not None]
    return bool(given) and all(map(is_constant, given))


def attribute(node: ir.Node, name: str, default: int) -> int:
    """A whole number among a node's attributes."""
    return node.attributes[name].as_int() if name in node.attributes else default


def sizes_in(value: ir.Value | None) -> list[Size] | None:
    """The entries of a computed shape: numbers, or sizes of other values. None where an entry is neither."""
    if value is None:
        return None
    if (numbers := integers_of(value)) is not None:
        return list(numbers)
    node = value.producer()
    if node is None or node.domain:
        return None
    match node.op_type:
        case "Concat":
            parts = [sizes_in(each) for each in node.inputs]
            return None if None in parts else [size for part in parts if part is not None for size in part]
        case "Unsqueeze" | "Squeeze" | "Cast" | "Identity":
            return sizes_in(node.inputs[0])
        case "Shape":
            return _shape(node)
        case "Gather":
            return _taken(sizes_in(node.inputs[0]), integers_of(node.inputs[1]))
        case "Slice":
            return _sliced(node)
    return None


def _shape(node: ir.Node) -> list[Size] | None:
    given = node.inputs[0]
    if given is None or given.shape is None:
        return None
    first, last = attribute(node, "start", 0), attribute(node, "end", len(given.shape))
    sizes: list[Size] = [(given, axis) for axis in range(len(given.shape))]
    return sizes[first:last]


def _taken(sizes: Sequence[Size] | None, places: Sequence[int] | None) -> list[Size] | None:
    if sizes is None or places is None or not all(-len(sizes) <= place < len(sizes) for place in places):
        return None
    return [sizes[place] for place in places]


def _sliced(node: ir.Node) -> list[Size] | None:
    sizes = sizes_in(node.inputs[0])
    bounds = [integers_of(value) for value in node.inputs[1:3]]
    steps = integers_of(node.inputs[4]) if len(node.inputs) > 4 else [1]
    if sizes is None or steps != [1] or any(each is None or len(each) != 1 for each in bounds):
        return None
    (first,), (last,) = (each or [0] for each in bounds)
    return list(sizes[first:last])
