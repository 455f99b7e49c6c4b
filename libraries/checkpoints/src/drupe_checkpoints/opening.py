"""Opening a checkpoint: a folder that transformers saved, or a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from drupe_checkpoints.checkpoint import GGUF, Checkpoint, is_file

if TYPE_CHECKING:
    from drupe_checkpoints.hub import Snapshot


def open_checkpoint(location: Path, snapshot: Snapshot | None = None) -> Checkpoint:
    """Read the configuration of the checkpoint at `location`; its weights are not read.

    snapshot: the hub's revision that was downloaded there. Raises ModelError where there is no checkpoint.
    """
    if location.suffix == GGUF and is_file(location):
        from drupe_checkpoints.gguf.checkpoint import GgufCheckpoint

        return GgufCheckpoint.open_file(location)
    return Checkpoint.open_folder(location, snapshot)
