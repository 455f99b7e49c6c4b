"""Opening a checkpoint: a folder that transformers saved, or a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from drupe.api import replace
from drupe_checkpoints.checkpoint import GGUF, Checkpoint, is_file

if TYPE_CHECKING:
    from drupe.api import Model
    from drupe_checkpoints.adapters.reference import AdapterReference
    from drupe_checkpoints.adapters.switched import SwitchedAdapter
    from drupe_checkpoints.hub import Snapshot


def open_checkpoint(
    location: Path,
    snapshot: Snapshot | None = None,
    adapters: tuple[AdapterReference, ...] = (),
    switched: tuple[SwitchedAdapter, ...] = (),
) -> Checkpoint:
    """Read the configuration of the checkpoint at `location`; its weights are not read.

    snapshot: the hub's revision that was downloaded there. adapters: those that are merged into its tensors.
    switched: those that stay beside them. Raises ModelError where there is no checkpoint, or no such adapter.
    """
    opened = replace(_opened(location, snapshot), switched=switched)
    if not (adapters or switched):
        return opened
    from drupe_checkpoints.adapters.applied import with_adapters

    return with_adapters(opened, adapters)


def checkpoint_of(model: Model) -> Checkpoint:
    """The checkpoint that a model of kind `hf` is, with its adapters. Raises ModelError."""
    if model.payload is not None:
        held: Checkpoint = model.payload
        return held
    from drupe_checkpoints.adapters.reference import adapters_of
    from drupe_checkpoints.adapters.switched import switched_of

    return open_checkpoint(model.location, adapters=adapters_of(model), switched=switched_of(model))


def _opened(location: Path, snapshot: Snapshot | None) -> Checkpoint:
    if location.suffix == GGUF and is_file(location):
        from drupe_checkpoints.gguf.checkpoint import GgufCheckpoint

        return GgufCheckpoint.open_file(location)
    return Checkpoint.open_folder(location, snapshot)
