"""From what a user typed to a checkpoint's folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import Model, ModelError, UsageError
from drupe_huggingface.checkpoint import GGUF, POINT_AT_A_CHECKPOINT, Checkpoint, is_file, is_folder, no_checkpoint

if TYPE_CHECKING:
    from drupe_huggingface.hub import Snapshot

HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*(/[\w.-]+)?", re.ASCII)
LONGEST = 96  # characters of a hub id


def resolve(reference: str, options: Mapping[str, Any]) -> Model | None:
    """The model of kind `hf` that `reference` names; None for what other plugins may know.

    options: `revision`, `token` and `cache_dir`, for the hub. Raises ModelError for a path that is not a checkpoint and
    for a hub id that cannot be had, UsageError for a revision of what is no hub's.
    """
    path = _path(reference)
    here = is_file(path) or is_folder(path)
    if here and options.get("revision") is not None:
        raise UsageError("--revision is for models on the hub", where=path, cure="leave it out, or give a hub id")
    if path.suffix == GGUF and is_file(path):
        return Model("hf", path, payload=Checkpoint.open(path))
    if is_file(path / "model.onnx") or is_file(path) or "://" in reference:
        return None
    if is_folder(path):
        return Model("hf", path, payload=Checkpoint.open(path))
    snapshot = _on_the_hub(reference, path, options)
    facts = {"commit": snapshot.commit}
    return Model("hf", snapshot.folder, facts, payload=Checkpoint.open(snapshot.folder, snapshot))


def _path(reference: str) -> Path:
    if not reference.strip():
        raise ModelError("no model is named", cure=POINT_AT_A_CHECKPOINT)
    try:
        return Path(reference).expanduser()
    except RuntimeError:  # ~name of a user that this machine does not know
        return Path(reference)


def _on_the_hub(reference: str, path: Path, options: Mapping[str, Any]) -> Snapshot:
    if looks_like_a_path(reference):
        raise no_checkpoint(path)
    if len(reference) > LONGEST or not HUB_ID.fullmatch(reference) or "--" in reference or ".." in reference:
        raise ModelError(f"'{reference}' is neither a folder nor a hub id", cure=POINT_AT_A_CHECKPOINT)
    from drupe_huggingface.hub import find

    return find(reference, options)


def looks_like_a_path(reference: str) -> bool:
    """Whether a reference that is nowhere on disk was meant to be there all the same."""
    if reference.startswith((".", "~", "/", "\\")) or Path(reference).is_absolute():
        return True
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    if reference.endswith(tuple(separators)) or "\\" in reference or reference.count("/") > 1:
        return True
    return any(separator in reference for separator in separators) and is_folder(Path(reference).parent)
