"""Outline: a graph without its weights, read by a walk over protobuf's bytes that loads no library and no tensor.

The walk skips a tensor in the graph by its length, so a file that contains gigabytes of weights takes no longer.
The numbers are those of onnx.proto: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import dataclasses
import functools
import math
import mmap
from pathlib import Path

from drupe.api import ModelError, Record
from drupe_files import unreadable
from drupe_onnx.elements import ELEMENTS
from drupe_onnx.protobuf import NUMBER, Bytes, Malformed, fields, messages, packed

AGAIN = "copy or download the model again with all its files, or make it again"

_MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA = 7, 8, 14
_GRAPH_NODE, _GRAPH_WEIGHT, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_METADATA = 1, 2, 4, 5, 9
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER, _ATTRIBUTE_GRAPHS = 1, 3, (6, 11)
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_EXTERNAL = 1, 2, 8, 13
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _SHAPE_DIM = 1, 2, 1, 1
_TENSOR_TYPE_ELEMENT, _TENSOR_TYPE_SHAPE, _DIM_SIZE, _DIM_SYMBOL = 1, 2, 1, 2


class Node(Record):
    """A node: its operator, integer attributes and metadata, and the names of its inputs and outputs.

    An input that is left out is "".
    """

    operator: str
    integers: dict[str, int]
    metadata: dict[str, str]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


class Weight(Record):
    """An initializer. external: its place in a data file, as the graph gives it; empty where it is in the graph."""

    name: str
    element: int
    shape: tuple[int, ...]
    external: dict[str, str]

    @property
    def nbytes(self) -> int:
        return -(-math.prod(self.shape) * ELEMENTS.get(self.element, ("", 0))[1] // 8)


class Port(Record):
    """An input or output of a model. element: its number in ELEMENTS; 0 for a value that is not a typed tensor.

    shape: a number for each fixed size, a name or None for a size that varies; None where there is no shape.
    """

    name: str
    element: int
    shape: tuple[int | str | None, ...] | None


@dataclasses.dataclass
class Outline:
    """The nodes and initializers of a model's graph and of those inside it, and the model's metadata.

    inputs, outputs: of the model, without initializers that are also listed as inputs.
    """

    nodes: list[Node] = dataclasses.field(default_factory=list)
    weights: list[Weight] = dataclasses.field(default_factory=list)
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    inputs: list[Port] = dataclasses.field(default_factory=list)
    outputs: list[Port] = dataclasses.field(default_factory=list)


def read_outline(path: Path) -> Outline:
    """The outline of a file. Raises ModelError for a file that cannot be read or is not a graph."""
    try:
        status = path.stat()
        return _read(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise unreadable(path, error) from error
    except Malformed as error:
        raise ModelError(f"'{path.name}' is not an ONNX graph", where=path, cure=AGAIN) from error


@functools.lru_cache(maxsize=8)
def _read(path: Path, size: int, changed: int) -> Outline:
    """Cached, because finding a model and describing it need the same outline."""
    if not size:
        raise Malformed
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        return outline_of(held)


def outline_of(data: Bytes) -> Outline:
    """The outline of a serialised model. Raises Malformed for other bytes."""
    outline = Outline()
    graphs: list[tuple[int, int]] = []
    versions = 0
    for number, start, stop in fields(data, 0, len(data)):
        if stop == NUMBER:
            continue
        if number == _MODEL_GRAPH:
            graphs.append((start, stop))
        elif number == _MODEL_METADATA:
            outline.metadata |= _entry(data, start, stop)
        versions += number == _MODEL_OPSET
    for place in graphs:
        _walk_ports(data, *place, outline)
    while graphs:
        graphs += _walk_graph(data, *graphs.pop(), outline)
    if not (versions or outline.nodes):
        raise Malformed
    return outline


def _walk_graph(data: Bytes, start: int, stop: int, outline: Outline) -> list[tuple[int, int]]:
    """Add a graph to the outline; returns the places of the graphs inside its nodes."""
    inner: list[tuple[int, int]] = []
    for number, first, last in fields(data, start, stop):
        if last == NUMBER:
            continue
        if number == _GRAPH_NODE:
            outline.nodes.append(_node(data, first, last, inner))
        elif number == _GRAPH_WEIGHT:
            outline.weights.append(_weight(data, first, last))
    return inner


def _walk_ports(data: Bytes, start: int, stop: int, outline: Outline) -> None:
    """Add the inputs and outputs of a model's graph to the outline."""
    defaults: set[str] = set()
    for number, first, last in fields(data, start, stop):
        if last == NUMBER:
            continue
        if number == _GRAPH_INPUT:
            outline.inputs.append(_port(data, first, last))
        elif number == _GRAPH_OUTPUT:
            outline.outputs.append(_port(data, first, last))
        elif number == _GRAPH_WEIGHT:
            defaults.add(_weight(data, first, last).name)
    outline.inputs = [port for port in outline.inputs if port.name not in defaults]


def _port(data: Bytes, start: int, stop: int) -> Port:
    name, element = "", 0
    shape: tuple[int | str | None, ...] | None = None
    for number, first, last in messages(data, start, stop):
        if number == _VALUE_NAME:
            name = _text(data, first, last)
        elif number == _VALUE_TYPE:
            for kind, *place in messages(data, first, last):
                if kind == _TYPE_TENSOR:
                    element, shape = _tensor_type(data, *place)
    return Port(name, element, shape)


def _tensor_type(data: Bytes, start: int, stop: int) -> tuple[int, tuple[int | str | None, ...] | None]:
    element = 0
    shape: tuple[int | str | None, ...] | None = None
    for number, first, last in fields(data, start, stop):
        if number == _TENSOR_TYPE_ELEMENT and last == NUMBER:
            element = first
        elif number == _TENSOR_TYPE_SHAPE and last != NUMBER:
            shape = tuple(_size(data, *place) for kind, *place in messages(data, first, last) if kind == _SHAPE_DIM)
    return element, shape


def _size(data: Bytes, start: int, stop: int) -> int | str | None:
    for number, first, last in fields(data, start, stop):
        if number == _DIM_SIZE and last == NUMBER:
            return first if first < 1 << 63 else None  # negative: some exporters write that for a size that varies
        if number == _DIM_SYMBOL and last != NUMBER:
            return _text(data, first, last) or None
    return None


def _node(data: Bytes, start: int, stop: int, inner: list[tuple[int, int]]) -> Node:
    operator = ""
    integers: dict[str, int] = {}
    metadata: dict[str, str] = {}
    inputs: list[str] = []
    outputs: list[str] = []
    for number, first, last in messages(data, start, stop):
        if number == _NODE_INPUT:
            inputs.append(_text(data, first, last))
        elif number == _NODE_OUTPUT:
            outputs.append(_text(data, first, last))
        elif number == _NODE_OPERATOR:
            operator = _text(data, first, last)
        elif number == _NODE_ATTRIBUTE:
            _walk_attribute(data, first, last, integers, inner)
        elif number == _NODE_METADATA:
            metadata |= _entry(data, first, last)
    return Node(operator, integers, metadata, tuple(inputs), tuple(outputs))


def _walk_attribute(data: Bytes, start: int, stop: int, integers: dict[str, int], inner: list[tuple[int, int]]) -> None:
    name, value = "", None
    for number, first, last in fields(data, start, stop):
        if number == _ATTRIBUTE_INTEGER and last == NUMBER:
            value = first
        elif number == _ATTRIBUTE_NAME and last != NUMBER:
            name = _text(data, first, last)
        elif number in _ATTRIBUTE_GRAPHS and last != NUMBER:
            inner.append((first, last))
    if value is not None:
        integers[name] = value


def _weight(data: Bytes, start: int, stop: int) -> Weight:
    name, element = "", 0
    shape: list[int] = []
    external: dict[str, str] = {}
    for number, first, last in fields(data, start, stop):
        if number == _TENSOR_DIMS:
            shape += [first] if last == NUMBER else packed(data, first, last)
        elif number == _TENSOR_TYPE and last == NUMBER:
            element = first
        elif number == _TENSOR_NAME and last != NUMBER:
            name = _text(data, first, last)
        elif number == _TENSOR_EXTERNAL and last != NUMBER:
            external |= _entry(data, first, last)
    return Weight(name, element, tuple(shape), external)


def _entry(data: Bytes, start: int, stop: int) -> dict[str, str]:
    """A key and its value."""
    parts = {number: _text(data, *place) for number, *place in fields(data, start, stop) if place[1] != NUMBER}
    return {parts.get(1, ""): parts.get(2, "")}


def _text(data: Bytes, start: int, stop: int) -> str:
    return data[start:stop].decode("utf-8", "replace")
