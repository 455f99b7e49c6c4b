"""Whether a checkpoint has all that a conversion takes besides its configuration: `drupe inspect` asks in a hurry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe_huggingface.tokenizer import refuse_missing_tokenizer

if TYPE_CHECKING:
    from drupe_huggingface.checkpoint import Checkpoint


def refuse_incomplete(checkpoint: Checkpoint) -> None:
    """See `Checkpoint.refuse_incomplete`; of a folder."""
    _refuse_weights(checkpoint)
    refuse_missing_tokenizer(checkpoint.folder)


def _refuse_weights(checkpoint: Checkpoint) -> None:
    snapshot = checkpoint.snapshot
    if snapshot is not None and not snapshot.has_weights():
        from drupe_huggingface.hub import no_safetensors

        listed = snapshot.known()
        if listed and not listed.weight_bytes:
            raise no_safetensors(snapshot.repository, listed)
    elif checkpoint.summary() is None:
        checkpoint.tensors()  # knows, with libraries that take their time to load, what is wrong
