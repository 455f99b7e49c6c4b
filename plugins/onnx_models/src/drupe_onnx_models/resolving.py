"""Resolving a reference to a model of kind `onnx`, with its task, parts and facts from the outlines of its graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import Model, UsageError, flag
from drupe_onnx.facts import part_facts
from drupe_onnx.outline import read_outline
from drupe_onnx.package_folder import package_files
from drupe_onnx_models.finding import find, recorded_task
from drupe_onnx_models.recognizing import GRAPH, task_of

FOR_CHECKPOINTS = ("adapter", "adapters")
"""Options of a source that a graph cannot take: an adapter tells the names that a checkpoint's tensors have."""


def resolve(reference: str, options: Mapping[str, Any] | None = None) -> Model | None:
    """The model that a reference names; None for a reference that names neither a graph nor a folder with one.

    Raises UsageError for options that are for checkpoints, or models on the hub, only.
    """
    location = find(reference)
    if location is None:
        return None
    if asked := next((name for name in FOR_CHECKPOINTS if (options or {}).get(name)), None):
        raise UsageError(
            f"{flag(asked)} is for checkpoints, and this is a graph",
            where=location,
            cure="name the checkpoint that the graph was made of",
        )
    if (options or {}).get("revision"):
        raise UsageError("--revision is for models on the hub", where=location, cure="leave it out")
    files = package_files(location)
    outlines = [read_outline(path) for path in files.graphs.values()]
    known = task_of(outlines[0], location) if len(outlines) == 1 else GRAPH
    return Model("onnx", location, part_facts(files), task=recorded_task(location) or known)
