"""The kind `openvino`: a model in OpenVINO's format, an .xml file with its weights in a .bin file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import Context, Model, ModelKind
from drupe_files import file_digest

KIND = "openvino"
GRAPH = "openvino_model.xml"
TASK = "text-generation"
WEIGHTS = ("*.safetensors", "*.gguf", "pytorch_model*.bin")
STATE = b'type="ReadValue"'
"""What a graph that keeps its cache has in it."""


class OpenVinoKind(ModelKind):
    """A folder with openvino_model.xml, or an .xml file beside its .bin file."""

    name = KIND
    runnable = True

    def load(self, model: Model) -> Model:
        return model

    def save(self, model: Model, folder: Path, context: Context) -> Mapping[str, str]:
        for path in _files(model.location):
            shutil.copyfile(path, folder / path.name)
        return {}

    def fingerprint(self, model: Model, thorough: bool = True) -> str:
        digest = hashlib.sha256()
        for path in _files(model.location):
            digest.update(f"{path.name}\0{file_digest(path)}\0".encode())
        return digest.hexdigest()

    def size(self, model: Model) -> int | None:
        return sum(path.stat().st_size for path in _files(model.location))


def resolve(reference: str) -> Model | None:
    """The model that `reference` names; None where it is not in OpenVINO's format."""
    path = Path(reference)
    graph = graph_of(path)
    if not reference.strip() or graph.suffix != ".xml" or not (_is_file(graph) and _is_file(graph.with_suffix(".bin"))):
        return None
    if path.is_dir() and any(any(path.glob(pattern)) for pattern in WEIGHTS):
        return None  # a checkpoint with an OpenVINO model beside it, whose .xml file can be named
    return Model.single(KIND, path, {}, task=TASK if _keeps_state(graph) else None)


def graph_of(location: Path) -> Path:
    """The .xml file of a model."""
    with contextlib.suppress(OSError):  # no possible name
        return location / GRAPH if location.is_dir() else location
    return location


def _is_file(path: Path) -> bool:
    """Whether there is a file; False for what cannot be the name of one."""
    with contextlib.suppress(OSError):
        return path.is_file()
    return False


def settings_of(location: Path) -> Mapping[str, Any]:
    """config.json beside the graph, where there is one."""
    path = graph_of(location).with_name("config.json")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _keeps_state(graph: Path) -> bool:
    with graph.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(STATE) >= 0


def _files(location: Path) -> list[Path]:
    if location.is_dir():
        return sorted(path for path in location.iterdir() if path.is_file())
    return [location, location.with_suffix(".bin")]
