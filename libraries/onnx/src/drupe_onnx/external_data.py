"""The data files that hold the tensors of a graph: each is found, and is checked to hold the tensor's bytes."""

from __future__ import annotations

import os
from pathlib import Path

from drupe.api import ModelError, counted
from drupe_onnx.outline import AGAIN, Outline, Weight


def data_file(graph: Path, name: str, location: str, offset: int, nbytes: int, length: int | None) -> Path:
    """The file that holds a tensor's bytes, after a check that they exist.

    location, offset, length: as the graph gives them; a length of 0 or None is ignored. nbytes: the tensor's size.
    """
    data = _inside(graph, name, location)
    try:
        size = data.stat().st_size
    except OSError as error:
        raise ModelError(f"the data file '{location}' of '{graph.name}' is missing", where=data, cure=AGAIN) from error
    if length not in (None, 0, nbytes):
        raise ModelError(
            f"the tensor '{name}' needs {counted(nbytes, 'byte')}, but the graph gives it {length}",
            where=graph,
            cure=AGAIN,
        )
    if offset < 0 or offset + nbytes > size:
        raise ModelError(
            f"the tensor '{name}' ends at byte {offset + nbytes} of '{location}', but the file has only {size}",
            where=data,
            cure=AGAIN,
        )
    return data


def _inside(graph: Path, name: str, location: str) -> Path:
    """The data file by name. A downloaded graph must not make drupe read files that are not part of the model.

    A link is followed only into the folder where the linked graph really lies, as in the hub's cache.
    """
    data = Path(os.path.normpath(graph.parent / location))  # by name only: resolve() would follow the hub's links
    real, homes = Path(os.path.realpath(data)), (os.path.realpath(graph.parent), Path(os.path.realpath(graph)).parent)
    named = not Path(location).is_absolute() and data.is_relative_to(os.path.normpath(graph.parent))
    if not (named and any(real.is_relative_to(home) for home in homes)):
        raise ModelError(
            f"the tensor '{name}' lies outside the folder of its graph, at '{location}'",
            where=graph,
            cure="put the data file beside the graph, and save the graph with its name alone",
        )
    return data


def data_files(graph: Path, outline: Outline) -> set[Path]:
    """The data files of a graph, after a check that every weight is in them."""
    return {_data_file(graph, weight) for weight in outline.weights if weight.external}


def _data_file(graph: Path, weight: Weight) -> Path:
    said = weight.external
    try:
        offset, length = int(said.get("offset") or 0), int(said.get("length") or 0)
    except ValueError as error:
        raise ModelError(
            f"offset or length of the tensor '{weight.name}' is not a number", where=graph, cure=AGAIN
        ) from error
    return data_file(graph, weight.name, said.get("location", ""), offset, weight.nbytes, length)
