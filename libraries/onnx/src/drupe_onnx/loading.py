"""Reading a package from a folder: graphs are read, weights become expressions, and other files become paths."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import onnx

from drupe.api import ModelError, replace
from drupe_files import unreadable
from drupe_onnx import ir
from drupe_onnx.embedded import without_weights
from drupe_onnx.expressions.arranged import Reshape
from drupe_onnx.expressions.sources import ExternalTensor
from drupe_onnx.external_data import data_file
from drupe_onnx.outline import AGAIN
from drupe_onnx.package import OnnxPackage, graphs_of, initializers_of
from drupe_onnx.package_folder import PackageFiles
from drupe_onnx.weights import LazyWeight


def load_package(files: PackageFiles) -> OnnxPackage:
    """The package in a folder with .onnx files, or in a single one.

    Raises ModelError for a file that is not a graph, and for external data that is missing, cut short, or outside the
    folder.
    """
    components, data = {}, set()
    for role, path in files.graphs.items():
        components[role], its_data = _load_graph(path)
        data |= its_data
    return OnnxPackage(components, dict(files.beside(data)))


def _load_graph(path: Path) -> tuple[ir.Model, set[Path]]:
    """A graph with lazy weights, and the data files it uses."""
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)  # what it warns of is an error here: see `_order`
    try:
        model = ir.from_proto(onnx.ModelProto.FromString(without_weights(path)))
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # protobuf and onnx_ir raise several classes for bytes that are not a graph
        raise ModelError(f"the ONNX graph '{path.name}' is damaged", where=path, cure=AGAIN) from error
    if not (model.opset_imports or len(model.graph)):
        raise ModelError(f"'{path.name}' is not an ONNX graph", where=path, cure=AGAIN)
    _order(path, model)
    data = set()
    first: dict[tuple[Path, int, int, ir.DataType], ExternalTensor] = {}
    for value in initializers_of(model):
        if isinstance(value.const_value, ir.ExternalTensor):
            source = _checked(path, value.const_value)
            data.add(source.path)
            # Bytes that two weights share, such as those of a tied head, stay shared: see `distinct_weights`.
            shared = first.setdefault((source.path, source.offset, source.nbytes, source.dtype), source)
            same = shared if shared.shape == source.shape else Reshape(shared, source.shape)
            value.const_value = LazyWeight(value.name, same)
    _refuse_external_attributes(path, model)
    return model, data


def _order(path: Path, model: ir.Model) -> None:
    """Put each node behind those whose results it reads, as runtimes do.

    Raises ModelError for a graph that has no such order, or in which nothing makes what a node reads.
    """
    for graph in graphs_of(model):
        places = {node: at for at, node in enumerate(graph)}
        in_order = True
        for node, at in places.items():
            for value in node.inputs:
                if value is None or value.is_graph_input() or value.is_initializer():
                    continue
                if (maker := value.producer()) is None:
                    what = f"nothing makes '{value.name}', which the node '{node.name or node.op_type}' reads"
                    raise ModelError(what, where=path, cure=AGAIN)
                in_order = in_order and places.get(maker, -1) < at
        if not in_order:
            try:
                graph.sort()
            except ValueError as error:
                what = "the nodes of the graph read one another's results in a circle"
                raise ModelError(what, where=path, cure=AGAIN) from error


def _checked(path: Path, tensor: ir.ExternalTensor) -> ExternalTensor:
    """The place of a tensor's bytes, after a check that they exist."""
    shape = tuple(int(each) for each in tensor.shape.numpy())
    location = os.fspath(tensor.location)
    wanted = ExternalTensor(path, tensor.dtype, shape, tensor.offset or 0)
    data = data_file(path, tensor.name or "", location, wanted.offset, wanted.nbytes, tensor.length)
    return replace(wanted, path=data)


def _refuse_external_attributes(path: Path, model: ir.Model) -> None:
    for graph in graphs_of(model):
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                    raise ModelError(
                        f"the attribute '{attribute.name}' of node '{node.name}' has its tensor in a data file, which "
                        "is not supported",
                        where=path,
                        cure="save the graph with onnx.save(..., convert_attribute=False)",
                    )
