"""Reading a package from a folder: graphs at once, weights as expressions, the other files as paths."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from drupe.api import ModelError
from drupe_onnx import ir
from drupe_onnx.describing import data_file, files_beside, graph_files
from drupe_onnx.expressions import ExternalTensor
from drupe_onnx.outline import AGAIN
from drupe_onnx.package import OnnxPackage, graphs_of, initializers_of
from drupe_onnx.reading import unreadable
from drupe_onnx.weights import LazyWeight


def load_package(location: Path) -> OnnxPackage:
    """The package in a folder that holds model.onnx, or a single .onnx file.

    Raises ModelError for what is no graph, and for external data that is missing, cut short, or outside the folder.
    """
    if location.is_file():
        return OnnxPackage({"model": _load_graph(location)[0]})
    components, data = {}, set()
    for path in graph_files(location):
        components[path.stem], its_data = _load_graph(path)
        data |= its_data
    return OnnxPackage(components, dict(files_beside(location, data)))


def _load_graph(path: Path) -> tuple[ir.Model, set[Path]]:
    """A graph with lazy weights, and the data files it uses."""
    try:
        model = ir.load(path)
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # protobuf's and onnx_ir's, for bytes that are no graph
        raise ModelError(f"'{path.name}' is not a sound ONNX graph", where=path, cure=AGAIN) from error
    if not (model.opset_imports or len(model.graph)):
        raise ModelError(f"'{path.name}' is not an ONNX graph", where=path, cure=AGAIN)
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
    shape = tuple(int(each) for each in tensor.shape.numpy())
    location = os.fspath(tensor.location)
    wanted = ExternalTensor(path, tensor.dtype, shape, tensor.offset or 0)
    data = data_file(path, tensor.name or "", location, wanted.offset, wanted.nbytes, tensor.length)
    return dataclasses.replace(wanted, path=data)


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
