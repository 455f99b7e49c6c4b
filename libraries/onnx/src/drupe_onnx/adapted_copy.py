"""A copy of a package in which one of its adapters is part of the base model: it computes what the adapter makes of it.

Whatever measures a package can measure the copy. No weight is copied: its files, and the adapter's, are hard-linked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from drupe.api import RECORD, Model, ModelError
from drupe_onnx import ir
from drupe_onnx.adapter_files import read_adapter
from drupe_onnx.expressions.sources import ExternalTensor
from drupe_onnx.external_data import data_files
from drupe_onnx.files import link_or_copy
from drupe_onnx.kind import package_of
from drupe_onnx.layout import reference, serialized
from drupe_onnx.outline import read_outline
from drupe_onnx.package import GRAPH, OnnxPackage, initializers_of
from drupe_onnx.package_folder import folder_of
from drupe_onnx.switching import ADAPTERS, FOLDER, MAKE_AGAIN, Switching, chosen_adapter, switching_in
from drupe_onnx.weights import LazyWeight, expression_of


def write_adapted_copy(model: Model, name: str, folder: Path) -> None:
    """Write the copy of a package on disk into the empty `folder`. Raises UsageError where there is no such adapter."""
    home = Path(os.path.normpath(folder_of(model)))
    adapter, switching = chosen_adapter(name, home), switching_in(home)
    assert switching is not None
    package = package_of(model.but(payload=None))
    component = package.component
    _put_in(component, switching, adapter)
    graph = next(iter(package.graph_names.values()))
    files = _files(home, graph, package)
    files |= {} if adapter in files.values() else {f"{FOLDER}/{adapter.name}": adapter}
    places = {path: called for called, path in files.items()}
    tensors = [_reference(value, places) for value in initializers_of(component)]
    for called, path in files.items():
        target = folder / called
        target.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(path.resolve(), target)
    (folder / graph).write_bytes(serialized(component, tensors))


def _reference(value: ir.Value, places: Mapping[Path, str]) -> ir.ExternalTensor | None:
    """An initializer's place in a file of the copy; None for one in the graph. places: the names of the files."""
    source = expression_of(value)
    if not isinstance(source, ExternalTensor):
        return None
    return reference(value, places[source.path], source.offset, source.nbytes)


def _files(home: Path, graph: str, package: OnnxPackage) -> dict[str, Path]:
    """The files of the copy but for its graph and its record."""
    data = data_files(home / graph, read_outline(home / graph))
    held = {path.relative_to(home).as_posix(): path for path in data}
    held |= {name: path for name, path in package.files.items() if isinstance(path, Path)}
    return {name: path for name, path in held.items() if name not in (GRAPH, ADAPTERS, RECORD)}


def _put_in(component: ir.Model, switching: Switching, adapter: Path) -> None:
    """Give the graph's optional inputs the adapter's values for good."""
    graph, values = component.graph, read_adapter(adapter)
    wanted = {name for each in switching.products for name in (each.inward, each.outward)}
    if strange := sorted(values.keys() - wanted):
        raise ModelError(
            f"the adapter has values for '{strange[0]}', which is no input of the graph", where=adapter, cure=MAKE_AGAIN
        )
    kept = [value for value in graph.inputs if value.name not in wanted]
    graph.inputs.clear()
    graph.inputs.extend(kept)
    for name, tensor in values.items():
        value = graph.initializers[name]
        value.const_value = LazyWeight(name, tensor)
        value.shape = ir.Shape(tensor.shape)
