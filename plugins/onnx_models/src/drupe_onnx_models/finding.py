"""Finding the graph that a reference names: an .onnx file, or a folder with one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from drupe.api import RECORD, ModelError
from drupe_onnx_models.side_files import GENAI, SUBFOLDER, object_in

SUFFIX = ".onnx"
GRAPH = "model.onnx"
CHECKPOINT = ("*.safetensors", "*.gguf", "pytorch_model*.bin")
"""Weights of a checkpoint. In a folder with them, a graph not called model.onnx does not make it a folder of graphs."""
VARIANTS = ("model_", "model-", "decoder_model", "decoder_with_past_model")
"""Names of files with other forms of the same model: model_fp16.onnx, decoder_model_merged.onnx."""


def find(reference: str) -> Path | None:
    """The folder of a package, or the file of a graph, that a reference names; None for other references.

    Raises ModelError for a folder in which several graphs may be meant.
    """
    try:
        path = Path(reference).expanduser()
        if path.is_dir():
            return _in_folder(path)
        return path if path.suffix == SUFFIX and path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # a name that is too long, no permission, a NUL, an unknown user's home
        return None


def _in_folder(folder: Path) -> Path | None:
    graphs = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())
    checkpoint = any(True for pattern in CHECKPOINT for _ in folder.glob(pattern))
    if not checkpoint:
        _refuse_broken_links(folder)
    if not graphs:
        inner = folder / SUBFOLDER
        return _in_folder(inner) if inner.is_dir() and not checkpoint else None
    if (folder / RECORD).is_file():
        return folder
    others = [path for path in graphs if path.name != GRAPH]
    if (named := _named_by_genai(folder)) is not None:
        return named if others else folder
    if len(others) < len(graphs):
        return folder / GRAPH if others and _are_variants(others) else folder
    if checkpoint:
        return None
    if len(graphs) > 1 and _are_variants(graphs):
        raise _several(folder, graphs)
    return folder if len(graphs) > 1 else graphs[0]


def _refuse_broken_links(folder: Path) -> None:
    """Raise ModelError for a graph that is a link to no file: the model would be made without one of its parts."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        if path.is_symlink() and not path.exists():
            what = f"'{path.name}' is a link to a file that is not there"
            raise ModelError(what, where=folder, cure="download the model again with all its files, or remove the link")


def _are_variants(graphs: Sequence[Path]) -> bool:
    """Whether graphs are one model in several forms; otherwise they are parts of a model, by role."""
    return all(path.name.startswith(VARIANTS) for path in graphs)


def _several(folder: Path, graphs: Sequence[Path]) -> ModelError:
    return ModelError(
        f"the folder holds several graphs, and none is called {GRAPH}: {', '.join(path.name for path in graphs)}",
        where=folder,
        cure=f"give one of the files, such as {graphs[0]}",
    )


def _named_by_genai(folder: Path) -> Path | None:
    """The graph that genai_config.json names. Raises ModelError for a model of several graphs."""
    path = folder / GENAI
    model: Any = object_in({GENAI: path} if path.is_file() else {}, GENAI).get("model")
    if not isinstance(model, dict):
        return None
    files = dict(_filenames(model))
    if len(files) > 1:
        raise ModelError(
            f"the model has several graphs: {', '.join(f'{name} ({role})' for role, name in files.items())}",
            where=path,
            cure="give one of the files; it is optimized alone",
        )
    name = next(iter(files.values()), "")
    inside = name and not Path(name).is_absolute() and ".." not in Path(name).parts
    return folder / name if inside and (folder / name).is_file() else None


def _filenames(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for role, section in model.items():
        if isinstance(section, dict) and isinstance(section.get("filename"), str):
            yield role, section["filename"]


def recorded_task(folder: Path) -> str | None:
    """The task in a package's drupe.json; None where it has none."""
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        task = record["task"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return task if isinstance(task, str) else None
