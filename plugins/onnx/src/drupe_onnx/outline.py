"""What a graph file says without its weights: a walk over protobuf's own bytes, which loads no library and no tensor.

A tensor in the graph is stepped over by its length, so a file with gigabytes in it takes no longer than one without.
The numbers are those of onnx.proto: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import functools
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from drupe.api import ModelError
from drupe_onnx.reading import unreadable

AGAIN = "fetch the model again, with its external data"

ELEMENTS = {
    1: ("float32", 32), 2: ("uint8", 8), 3: ("int8", 8), 4: ("uint16", 16), 5: ("int16", 16), 6: ("int32", 32),
    7: ("int64", 64), 8: ("string", 0), 9: ("bool", 8), 10: ("float16", 16), 11: ("float64", 64), 12: ("uint32", 32),
    13: ("uint64", 64), 14: ("complex64", 64), 15: ("complex128", 128), 16: ("bfloat16", 16), 17: ("float8e4m3fn", 8),
    18: ("float8e4m3fnuz", 8), 19: ("float8e5m2", 8), 20: ("float8e5m2fnuz", 8), 21: ("uint4", 4), 22: ("int4", 4),
    23: ("float4e2m1", 4), 24: ("float8e8m0", 8), 25: ("uint2", 2), 26: ("int2", 2), 27: ("float6e2m3", 6),
    28: ("float6e3m2", 6),
}  # fmt: skip
"""Name and bits of the element types by TensorProto.DataType; a string has no fixed size."""

_MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA = 7, 8, 14
_GRAPH_NODE, _GRAPH_WEIGHT = 1, 5
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_METADATA = 4, 5, 9
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER, _ATTRIBUTE_GRAPHS = 1, 3, (6, 11)
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_EXTERNAL = 1, 2, 8, 13

_Bytes: TypeAlias = bytes | mmap.mmap
_NUMBER = -1  # in place of where a field ends: it is a number


class Malformed(ValueError):
    """Bytes that are no graph."""


@dataclass(frozen=True)
class Node:
    """An operator in use: its type, its integer attributes, and its metadata."""

    operator: str
    integers: dict[str, int]
    metadata: dict[str, str]


@dataclass(frozen=True)
class Weight:
    """An initializer. external: what its graph says of the file it is in; empty where it is in the graph."""

    name: str
    element: int
    shape: tuple[int, ...]
    external: dict[str, str]

    @property
    def nbytes(self) -> int:
        return -(-math.prod(self.shape) * ELEMENTS.get(self.element, ("", 0))[1] // 8)


@dataclass
class Outline:
    """The nodes and initializers of a model's graph and of those inside it, and the model's metadata."""

    nodes: list[Node] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)


def read_outline(path: Path) -> Outline:
    """The outline of a file. Raises ModelError for one that cannot be read, or is no graph."""
    try:
        status = path.stat()
        return _read(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise unreadable(path, error) from error
    except Malformed as error:
        raise ModelError(f"'{path.name}' is not an ONNX graph", where=path, cure=AGAIN) from error


@functools.lru_cache(maxsize=8)
def _read(path: Path, size: int, changed: int) -> Outline:
    """Finding a model and describing it ask for the same outline."""
    if not size:
        raise Malformed
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        return outline_of(held)


def outline_of(data: _Bytes) -> Outline:
    """The outline of a serialised model. Raises Malformed for what is none."""
    outline = Outline()
    graphs: list[tuple[int, int]] = []
    versions = 0
    for number, start, stop in _fields(data, 0, len(data)):
        if stop == _NUMBER:
            continue
        if number == _MODEL_GRAPH:
            graphs.append((start, stop))
        elif number == _MODEL_METADATA:
            outline.metadata |= _entry(data, start, stop)
        versions += number == _MODEL_OPSET
    while graphs:
        graphs += _walk_graph(data, *graphs.pop(), outline)
    if not (versions or outline.nodes):
        raise Malformed
    return outline


def _walk_graph(data: _Bytes, start: int, stop: int, outline: Outline) -> list[tuple[int, int]]:
    """Add a graph to the outline; returns where the graphs inside its nodes are."""
    inner: list[tuple[int, int]] = []
    for number, first, last in _fields(data, start, stop):
        if last == _NUMBER:
            continue
        if number == _GRAPH_NODE:
            outline.nodes.append(_node(data, first, last, inner))
        elif number == _GRAPH_WEIGHT:
            outline.weights.append(_weight(data, first, last))
    return inner


def _node(data: _Bytes, start: int, stop: int, inner: list[tuple[int, int]]) -> Node:
    operator = ""
    integers: dict[str, int] = {}
    metadata: dict[str, str] = {}
    for number, first, last in _fields(data, start, stop):
        if last == _NUMBER:
            continue
        if number == _NODE_OPERATOR:
            operator = _text(data, first, last)
        elif number == _NODE_ATTRIBUTE:
            _walk_attribute(data, first, last, integers, inner)
        elif number == _NODE_METADATA:
            metadata |= _entry(data, first, last)
    return Node(operator, integers, metadata)


def _walk_attribute(
    data: _Bytes, start: int, stop: int, integers: dict[str, int], inner: list[tuple[int, int]]
) -> None:
    name, value = "", None
    for number, first, last in _fields(data, start, stop):
        if number == _ATTRIBUTE_INTEGER and last == _NUMBER:
            value = first
        elif number == _ATTRIBUTE_NAME and last != _NUMBER:
            name = _text(data, first, last)
        elif number in _ATTRIBUTE_GRAPHS and last != _NUMBER:
            inner.append((first, last))
    if value is not None:
        integers[name] = value


def _weight(data: _Bytes, start: int, stop: int) -> Weight:
    name, element = "", 0
    shape: list[int] = []
    external: dict[str, str] = {}
    for number, first, last in _fields(data, start, stop):
        if number == _TENSOR_DIMS:
            shape += [first] if last == _NUMBER else _packed(data, first, last)
        elif number == _TENSOR_TYPE and last == _NUMBER:
            element = first
        elif number == _TENSOR_NAME and last != _NUMBER:
            name = _text(data, first, last)
        elif number == _TENSOR_EXTERNAL and last != _NUMBER:
            external |= _entry(data, first, last)
    return Weight(name, element, tuple(shape), external)


def _entry(data: _Bytes, start: int, stop: int) -> dict[str, str]:
    """A key and its value."""
    parts = {number: _text(data, *place) for number, *place in _fields(data, start, stop) if place[1] != _NUMBER}
    return {parts.get(1, ""): parts.get(2, "")}


def _text(data: _Bytes, start: int, stop: int) -> str:
    return data[start:stop].decode("utf-8", "replace")


# Protobuf: https://protobuf.dev/programming-guides/encoding/


def _fields(data: _Bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message: number, start and end of the bytes; for a number its value, and _NUMBER."""
    while start < stop:
        tag, start = _varint(data, start, stop)
        kind = tag & 7
        if kind == 0:
            value, start = _varint(data, start, stop)
            yield tag >> 3, value, _NUMBER
            continue
        if kind == 2:
            length, start = _varint(data, start, stop)
        else:
            length = {1: 8, 5: 4}.get(kind, stop)
        if tag < 8 or start + length > stop:
            raise Malformed
        if kind == 2:
            yield tag >> 3, start, start + length
        start += length


def _packed(data: _Bytes, start: int, stop: int) -> Iterator[int]:
    while start < stop:
        value, start = _varint(data, start, stop)
        yield value


def _varint(data: _Bytes, start: int, stop: int) -> tuple[int, int]:
    """A number, and where it ends."""
    if start < stop and (byte := data[start]) < 0x80:  # nearly all of them
        return byte, start + 1
    value = 0
    for shift in range(0, 70, 7):
        if start >= stop:
            raise Malformed
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
    raise Malformed
