"""Writing a checkpoint with its adapters merged: model.safetensors, piece by piece, and config.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from drupe.api import Context, ModelError
from drupe_checkpoints.adapters.shared_blocks import BLOCKS
from drupe_checkpoints.checkpoint import Checkpoint
from drupe_files import disk_errors
from drupe_onnx import Expression, Files
from drupe_onnx.safetensors import SINGLE, TYPES

TIES = "tie_word_embeddings"
PIECE = 8 << 20  # bytes of a tensor that are held at a time


def write_weights(checkpoint: Checkpoint, folder: Path, context: Context) -> Mapping[str, str]:
    """Write model.safetensors; gives its SHA-256 by its name. Raises ModelError for a quantized checkpoint."""
    if checkpoint.is_packed:
        raise ModelError(
            "a quantized checkpoint cannot be saved with adapters merged into it",
            where=checkpoint.folder,
            cure="merge the adapter into the base model in floating point",
        )
    tensors = checkpoint.tensors()
    digest = hashlib.sha256()
    with disk_errors(folder), (folder / SINGLE).open("wb") as file, Files() as files:
        header = _header(tensors)
        file.write(header)
        digest.update(header)
        with context.progress.task("merging", sum(each.nbytes for each in tensors.values())):
            for tensor in tensors.values():
                step = max(1, PIECE // max(1, tensor.held_bytes(1)))
                for start in range(0, tensor.row_count, step):
                    context.stop_if_cancelled()
                    piece = tensor.rows(start, min(start + step, tensor.row_count), files).tobytes()
                    file.write(piece)
                    digest.update(piece)
                    context.progress.advance(len(piece))
    return {SINGLE: digest.hexdigest()}


def configuration_of(checkpoint: Checkpoint, folder: Path) -> Mapping[str, str]:
    """Write into the copied config.json what the adapters change in it; gives the digest of the file."""
    path = folder / "config.json"
    held = json.loads(path.read_bytes())
    changed = {key: checkpoint.config.get(key) for key in (TIES, BLOCKS) if held.get(key) != checkpoint.config.get(key)}
    if changed and checkpoint.whole is None:
        held |= changed
        path.write_text(json.dumps(held, indent=2) + "\n", encoding="utf-8")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}


def _header(tensors: Mapping[str, Expression]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    names = {dtype: name for name, dtype in TYPES.items()}
    at = 0
    for name, tensor in tensors.items():
        entries[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
