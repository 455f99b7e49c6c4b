"""Resolving a reference to a model of kind `onnx`, with its task, parts and facts from the outlines of its graphs."""

from __future__ import annotations

from drupe.api import Model
from drupe_onnx.facts import part_facts
from drupe_onnx.outline import read_outline
from drupe_onnx.package_folder import package_files
from drupe_onnx_models.finding import find, recorded_task
from drupe_onnx_models.recognizing import GRAPH, task_of


def resolve(reference: str) -> Model | None:
    """The model that a reference names; None for a reference that names neither a graph nor a folder with one."""
    location = find(reference)
    if location is None:
        return None
    files = package_files(location)
    outlines = [read_outline(path) for path in files.graphs.values()]
    known = task_of(outlines[0], location) if len(outlines) == 1 else GRAPH
    return Model("onnx", location, part_facts(files), task=recorded_task(location) or known)
