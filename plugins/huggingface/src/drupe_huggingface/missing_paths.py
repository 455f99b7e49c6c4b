"""References that were meant as a path, and the error for a path that does not exist."""

from __future__ import annotations

import os
from pathlib import Path

from drupe.api import ModelError, nearest
from drupe_checkpoints.checkpoint import POINT_AT_A_CHECKPOINT, is_file, is_folder, no_checkpoint

FILES = (
    ".onnx", ".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".pb", ".tflite", ".model",
    ".json", ".jinja", ".yaml", ".yml", ".toml", ".txt", ".zip", ".gz", ".tar",
)  # fmt: skip
"""How the names of files end. A hub id that ends so is not known."""
MODELS = (".onnx", ".gguf")
POINT_AT_A_FILE = f"point at an .onnx or a .gguf file, or {POINT_AT_A_CHECKPOINT.removeprefix('point ')}"


def looks_like_a_path(reference: str) -> bool:
    """Whether a reference that does not exist on disk was probably meant as a path."""
    if (
        reference.startswith((".", "~", "/", "\\"))
        or Path(reference).is_absolute()
        or _is_called_like_a_file(reference)
    ):
        return True
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    if reference.endswith(tuple(separators)) or "\\" in reference or reference.count("/") > 1:
        return True
    return any(separator in reference for separator in separators) and is_folder(Path(reference).parent)


def no_path(path: Path) -> ModelError:
    """The error for a file or a folder that is not there, with the nearest names that could be meant."""
    near = " or ".join(map(str, _near(path)))
    error = no_checkpoint(path)
    if _is_called_like_a_file(path.name):
        error.what, error.cure = error.what.replace("there is no folder", "there is no file"), POINT_AT_A_FILE
    error.what += f"; did you mean {near}?" if near else ""
    return error


def _is_called_like_a_file(name: str) -> bool:
    return name.lower().endswith(FILES)


def _near(path: Path) -> list[Path]:
    """Models that are called like this path. Of a path with several names the first that does not exist counts."""
    missing = path
    while missing.parent != missing and not is_folder(missing.parent):
        missing = missing.parent
    try:
        names = [each.name for each in missing.parent.iterdir()]
    except OSError:  # it may not be read
        return []
    found = [missing.parent / name / path.relative_to(missing) for name in nearest(missing.name, names)]
    if _is_called_like_a_file(path.name):
        return [each for each in found if each.suffix in MODELS and is_file(each)]
    return [each for each in found if is_folder(each)]
