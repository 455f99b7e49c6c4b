"""Graph files that contain their weights: they are read without the weights, each of which becomes a place in the file.

A model of up to 2 GB may be one file. Reading it with protobuf would hold its weights in memory twice.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from drupe_onnx.protobuf import NUMBER, Bytes, Malformed, fields, message, messages, rewritten, whole_number

LEAST = 1 << 10
"""Bytes. Smaller tensors stay in the graph, where shape inference can read them."""

_MODEL_GRAPH, _GRAPH_WEIGHT = 7, 5
_TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION, _EXTERNAL = 9, 13, 14, 1
_KEY, _VALUE = 1, 2


def without_weights(path: Path) -> bytes:
    """The bytes of a graph file, with each large initializer replaced by a reference to its place in that file.

    Raises OSError for a file that cannot be read, Malformed for one that is not a graph.
    """
    if not path.stat().st_size:
        raise Malformed
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        return _Stripping(path.name).model(held)


class _Stripping:
    """Writes a model's bytes again without the weights. location: the name of the file that holds the weights."""

    def __init__(self, location: str) -> None:
        self._location = location

    def model(self, data: Bytes) -> bytes:
        return rewritten(data, 0, len(data), {_MODEL_GRAPH: self._graph})

    def _graph(self, data: Bytes, start: int, stop: int) -> bytes:
        return rewritten(data, start, stop, {_GRAPH_WEIGHT: self._tensor})

    def _tensor(self, data: Bytes, start: int, stop: int) -> bytes:
        raw = [(first, last) for number, first, last in messages(data, start, stop) if number == _TENSOR_RAW]
        if len(raw) != 1 or raw[0][1] - raw[0][0] < LEAST or self._is_external(data, start, stop):
            return data[start:stop]
        ((first, last),) = raw
        entries = (("location", self._location), ("offset", str(first)), ("length", str(last - first)))
        external = b"".join(message(_TENSOR_EXTERNAL, self._entry(*entry)) for entry in entries)
        without = rewritten(data, start, stop, {_TENSOR_RAW: lambda *_: None})
        return without + external + whole_number(_TENSOR_LOCATION, _EXTERNAL)

    def _is_external(self, data: Bytes, start: int, stop: int) -> bool:
        return any(
            number == _TENSOR_LOCATION and last == NUMBER and value == _EXTERNAL
            for number, value, last in fields(data, start, stop)
        )

    def _entry(self, key: str, value: str) -> bytes:
        return message(_KEY, key.encode()) + message(_VALUE, value.encode())
