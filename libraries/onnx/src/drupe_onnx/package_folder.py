"""The files of a package's folder, found without loading a library or a weight."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from drupe.api import ONLY_PART, RECORD, Model, ModelError, Record
from drupe_onnx.external_data import data_files
from drupe_onnx.outline import read_outline
from drupe_onnx.package import GRAPH


class PackageFiles(Record):
    """The files of a package. graphs: by role. others: by name, with the data files of the graphs."""

    graphs: Mapping[str, Path]
    others: Mapping[str, Path]

    def beside(self, data: Collection[Path]) -> dict[str, Path]:
        """The files beside the graphs and their data, by name."""
        return {name: path for name, path in self.others.items() if path not in data}


def package_files(location: Path) -> PackageFiles:
    """The files of the package in a folder; for a single .onnx file, only this file.

    Raises ModelError for a folder without an .onnx file.
    """
    return PackageFiles(graph_files(location), _other_files(location) if location.is_dir() else {})


def graph_files(location: Path) -> dict[str, Path]:
    """The graph file of each part, by role. A single .onnx file, or a folder's only one, has the role "model". Several
    files have their names without ".onnx" as roles, with model.onnx first.

    Raises ModelError for a folder without an .onnx file.
    """
    if location.is_file():
        return {ONLY_PART: location}
    found = sorted(location.glob("*.onnx"), key=lambda path: (path.name != GRAPH, path.name))
    if not found:
        raise ModelError("there is no .onnx file", where=location, cure=f"give a folder that holds {GRAPH}")
    return {ONLY_PART: found[0]} if len(found) == 1 else {path.stem: path for path in found}


def folder_of(model: Model) -> Path:
    """The folder of a model, also where its location is a file."""
    return model.location if model.location.is_dir() else model.location.parent


def _other_files(folder: Path) -> dict[str, Path]:
    """All files but the graphs, hidden files, and the record of the run."""
    others = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        graph = path.parent == folder and path.suffix == ".onnx"
        if path.is_file() and not (hidden or graph or name == RECORD):
            others[name] = path
    return others


def size_of(location: Path) -> int:
    """Bytes of the graphs, their data, the files beside them, and the record of the run."""
    files = package_files(location)
    data = {path for graph in files.graphs.values() for path in data_files(graph, read_outline(graph))}
    record = {location / RECORD} if (location / RECORD).is_file() else set()
    return sum(path.stat().st_size for path in {*files.graphs.values(), *data, *files.others.values(), *record})
