"""Reading a package from a folder: graphs at once, weights as expressions, the other files as paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from drupe.api import ModelError
from drupe_onnx import ir
from drupe_onnx.expressions import ExternalTensor
from drupe_onnx.package import OnnxPackage, graphs_of, initializers_of
from drupe_onnx.weights import LazyWeight

GRAPH = "model.onnx"
RECORD = "drupe.json"
_AGAIN = "fetch the model again, with its external data"


def load_package(location: Path) -> OnnxPackage:
    """The package in a folder that holds model.onnx, or a single .onnx file.

    Raises ModelError for what is no graph, and for external data that is missing, cut short, or outside the folder.
    """
    if location.is_file():
        return OnnxPackage({"model": _load_graph(location)[0]})
    if not (location / GRAPH).is_file():
        raise ModelError(f"there is no {GRAPH}", where=location, cure=f"a folder that holds {GRAPH}")
    components, data = {}, set()
    for path in sorted(location.glob("*.onnx"), key=lambda path: (path.name != GRAPH, path.name)):
        components[path.stem], its_data = _load_graph(path)
        data |= its_data
    return OnnxPackage(components, dict(_files_beside(location, data)))


def _files_beside(folder: Path, data: set[Path]) -> Iterator[tuple[str, Path]]:
    """What goes with the graphs: all but them, their data, and the record of how they were made."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        graph = path.parent == folder and path.suffix == ".onnx"
        if path.is_file() and not (hidden or graph or name == RECORD or path in data):
            yield name, path


def _load_graph(path: Path) -> tuple[ir.Model, set[Path]]:
    """A graph with lazy weights, and the data files it uses."""
    try:
        model = ir.load(path)
    except OSError as error:
        raise ModelError(f"cannot read '{path.name}': {error.strerror or error}", where=path) from error
    except Exception as error:  # protobuf's and onnx_ir's, for bytes that are no graph
        raise ModelError(f"'{path.name}' is not a sound ONNX graph", where=path, cure=_AGAIN) from error
    if not (model.opset_imports or len(model.graph)):
        raise ModelError(f"'{path.name}' is not an ONNX graph", where=path, cure=_AGAIN)
    data = set()
    for value in initializers_of(model):
        if isinstance(value.const_value, ir.ExternalTensor):
            source = _checked(path, value.const_value)
            data.add(source.path)
            value.const_value = LazyWeight(value.name, source)
    _refuse_external_attributes(path, model)
    return model, data


def _checked(path: Path, tensor: ir.ExternalTensor) -> ExternalTensor:
    """The place of a tensor's bytes, after making sure that they are there."""
    data = _inside(path, tensor)
    source = ExternalTensor(data, tensor.dtype, tuple(int(each) for each in tensor.shape.numpy()), tensor.offset or 0)
    try:
        size = data.stat().st_size
    except OSError as error:
        raise ModelError(
            f"the data file '{tensor.location}' of '{path.name}' is missing", where=data, cure=_AGAIN
        ) from error
    if tensor.length not in (None, 0, source.nbytes):
        raise ModelError(
            f"the tensor '{tensor.name}' needs {source.nbytes} bytes, and its graph gives it {tensor.length}",
            where=path,
            cure=_AGAIN,
        )
    if source.offset < 0 or source.offset + source.nbytes > size:
        raise ModelError(
            f"the tensor '{tensor.name}' ends at byte {source.offset + source.nbytes} of '{tensor.location}', "
            f"which has {size}",
            where=data,
            cure=_AGAIN,
        )
    return source


def _inside(path: Path, tensor: ir.ExternalTensor) -> Path:
    """The data file by name: a graph from elsewhere must not make us read what is not part of the model.

    Where the name itself is a link, as in the hub's cache, it is followed.
    """
    location = os.fspath(tensor.location)
    data = Path(os.path.normpath(path.parent / location))  # by name only: resolve() would follow the hub's links
    if Path(location).is_absolute() or not data.is_relative_to(os.path.normpath(path.parent)):
        raise ModelError(
            f"the tensor '{tensor.name}' lies outside the folder of its graph, at '{location}'",
            where=path,
            cure="put the data file beside the graph, and save the graph with its name alone",
        )
    return data


def _refuse_external_attributes(path: Path, model: ir.Model) -> None:
    for graph in graphs_of(model):
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                    raise ModelError(
                        f"the node '{node.name}' keeps the tensor of its attribute '{attribute.name}' in a data file",
                        where=path,
                        cure="save the graph with onnx.save(..., convert_attribute=False)",
                    )
