"""Checkpoints as transformers saves them: where they are, what their configuration says, which files go with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drupe_huggingface.checkpoint import Checkpoint
    from drupe_huggingface.configuration import Configuration

__all__ = ["Checkpoint", "Configuration"]


def __getattr__(name: str) -> Any:
    if name == "Checkpoint":
        from drupe_huggingface.checkpoint import Checkpoint

        return Checkpoint
    if name == "Configuration":
        from drupe_huggingface.configuration import Configuration

        return Configuration
    raise AttributeError(f"drupe_huggingface has no '{name}'")
