"""Finding the checkpoint that a user named by path or hub id."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import Model, ModelError, UsageError
from drupe_checkpoints.checkpoint import GGUF, POINT_AT_A_CHECKPOINT, Checkpoint, is_file, is_folder
from drupe_checkpoints.opening import open_checkpoint
from drupe_huggingface.missing_paths import MODELS, looks_like_a_path, no_path

if TYPE_CHECKING:
    from drupe_checkpoints.adapters.reference import AdapterReference
    from drupe_checkpoints.adapters.switched import SwitchedAdapter
    from drupe_checkpoints.hub import Snapshot

HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*(/[\w.-]+)?", re.ASCII)
LONGEST = 96  # characters of a hub id
GRAPHS = ("*.onnx", "onnx/*.onnx", "openvino_model.xml")
WEIGHTS = ("*.safetensors", "*.gguf", "pytorch_model*.bin")


def resolve(reference: str, options: Mapping[str, Any]) -> Model | None:
    """The model of kind `hf` that `reference` names; None for a reference that other plugins may know.

    options: `revision`, `token` and `cache_dir`, for the hub; `adapter`, for what is merged into it; `adapters`, for
    what stays beside it. Raises ModelError for a path that is not a checkpoint and for a hub id that cannot be
    downloaded, UsageError for a revision with a path.
    """
    path = _path(reference)
    here = is_file(path) or is_folder(path)
    if here and options.get("revision") is not None:
        raise UsageError("--revision is for models on the hub", where=path, cure="leave it out, or give a hub id")
    if path.suffix == GGUF and is_file(path):
        return _model(open_checkpoint(path, None, _adapters(options), _switched(options)), path)
    if is_file(path):
        _refuse_file_of_checkpoint(path)
    if is_file(path) or "://" in reference:
        return None
    if is_folder(path):
        if _is_for_graphs(path):
            return None
        return _model_of_folder(open_checkpoint(path, None, _adapters(options), _switched(options)), path)
    snapshot = _on_the_hub(reference, path, options)
    checkpoint = open_checkpoint(snapshot.folder, snapshot, _adapters(options), _switched(options))
    return _model_of_folder(checkpoint, snapshot.folder, commit=snapshot.commit)


def _adapters(options: Mapping[str, Any]) -> tuple[AdapterReference, ...]:
    if not options.get("adapter"):
        return ()
    from drupe_checkpoints.adapters.reference import typed_adapters

    return typed_adapters(options["adapter"], functools.partial(adapter_on_the_hub, options=options))


def adapter_on_the_hub(name: str, options: Mapping[str, Any]) -> Path | None:
    """The folder of an adapter that is downloaded; None for a name that is no hub id with its owner."""
    if "/" not in name or looks_like_a_path(name) or not _is_hub_id(name):
        return None
    from drupe_checkpoints.hub import find_adapter

    return find_adapter(name, options)


def _switched(options: Mapping[str, Any]) -> tuple[SwitchedAdapter, ...]:
    if not options.get("adapters"):
        return ()
    from drupe_checkpoints.adapters.switched import typed_switched

    return typed_switched(options["adapters"], functools.partial(adapter_on_the_hub, options=options))


def _model(checkpoint: Checkpoint, location: Path, **facts: str) -> Model:
    """The model of a checkpoint, with its task and what to know of its adapters."""
    if not (checkpoint.adapters or checkpoint.switched):
        return Model.single("hf", location, facts, checkpoint, checkpoint.task)
    from drupe_checkpoints.adapters.applied import adapter_notices
    from drupe_checkpoints.adapters.reference import as_fact
    from drupe_checkpoints.adapters.switched import as_switched_fact
    from drupe_huggingface.bases_in_four_bits import bases_in_four_bits

    told = [
        *bases_in_four_bits(checkpoint.adapters, location, "--adapter"),
        *bases_in_four_bits(checkpoint.switched, location, "--adapters"),
        *adapter_notices(checkpoint),
    ]
    held = {**facts, **as_fact(checkpoint.adapters), **as_switched_fact(checkpoint.switched)}
    return Model.single("hf", location, held, checkpoint, checkpoint.task).noticed(*told)


def _model_of_folder(checkpoint: Checkpoint, folder: Path, **facts: str) -> Model:
    """The same, with what is to be known of a folder whose files say something twice. A GGUF file says it once."""
    from drupe_checkpoints.folder_notices import folder_notices

    return _model(checkpoint, folder, **facts).noticed(*folder_notices(checkpoint))


def _is_for_graphs(folder: Path) -> bool:
    """Whether a folder holds graphs and no checkpoint; a checkpoint's configuration may lie beside them."""
    if is_file(folder / "model.onnx"):
        return True
    graphs = (path for pattern in GRAPHS for path in folder.glob(pattern))
    weights = (path for pattern in WEIGHTS for path in folder.glob(pattern))
    return any(map(is_file, graphs)) and not any(map(is_file, weights))


def _refuse_file_of_checkpoint(path: Path) -> None:
    """Raise ModelError for one file of a checkpoint. A graph may lie in its folder, and is another plugin's."""
    folder = path.parent
    if path.suffix not in MODELS and is_file(folder / "config.json") and not _is_for_graphs(folder):
        raise ModelError(
            f"'{path}' is one file of a checkpoint", cure=f"name its folder: {shlex.quote(str(folder.absolute()))}"
        )


def _path(reference: str) -> Path:
    if not reference.strip():
        raise ModelError("no model is named", cure=POINT_AT_A_CHECKPOINT)
    try:
        return Path(reference).expanduser()
    except RuntimeError:  # "~name" for an unknown user
        return Path(reference)


def _on_the_hub(reference: str, path: Path, options: Mapping[str, Any]) -> Snapshot:
    if looks_like_a_path(reference):
        raise no_path(path)
    if not _is_hub_id(reference):
        raise ModelError(f"'{reference}' is neither a folder nor a hub id", cure=POINT_AT_A_CHECKPOINT)
    from drupe_checkpoints.hub import find

    return find(reference, options)


def _is_hub_id(reference: str) -> bool:
    fits = len(reference) <= LONGEST and HUB_ID.fullmatch(reference) is not None
    return fits and not any(each in reference for each in ("--", ".."))
