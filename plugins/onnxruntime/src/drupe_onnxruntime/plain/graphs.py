"""Graphs: the .onnx files of a model's parts, each opened when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from drupe.api import ONLY_PART, Model, ModelError, unknown
from drupe_onnx import graph_files


def files_of(model: Model) -> dict[str, Path]:
    """The file of each part that has one: ROLE.onnx for several parts; for one, model.onnx or the only .onnx file."""
    if len(model.parts) > 1:
        return {role: path for role in model.parts if (path := model.location / f"{role}.onnx").is_file()}
    try:
        found = graph_files(model.location)
    except ModelError:
        return {}
    return dict.fromkeys(model.parts, found[ONLY_PART]) if ONLY_PART in found else {}


def no_graph(model: Model) -> str | None:
    """Why a model cannot be opened if the file of a part is missing; None where no file is missing."""
    files = files_of(model)
    if missing := [role for role in model.parts if role not in files]:
        return f"the model has no .onnx file for its part '{missing[0]}'" if files else "the model has no .onnx file"
    return None


class Graphs:
    """The graphs of a model's parts in onnxruntime. Each is opened when it is first used."""

    def __init__(self, files: Mapping[str, Path], opened: Callable[[Path], Any]) -> None:
        """files: by part. opened: opens a file as an onnxruntime.InferenceSession."""
        self.files = files
        self._open = opened
        self._opened: dict[str, Any] = {}

    def __getitem__(self, part: str) -> Any:
        """The InferenceSession of a part. Raises UsageError where there is no such part."""
        if part not in self.files:
            raise unknown("part", part, self.files)
        if part not in self._opened:
            self._opened[part] = self._open(self.files[part])
        return self._opened[part]

    def close(self) -> None:
        self._opened.clear()
