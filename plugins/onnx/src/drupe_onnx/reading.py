"""What is said of a file that cannot be read."""

from __future__ import annotations

from pathlib import Path

from drupe.api import ModelError


def unreadable(path: Path, error: OSError) -> ModelError:
    """The error for a file that the system does not let us read: no permission, a folder, a broken disk."""
    return ModelError(
        f"cannot read '{path.name}': {error.strerror or error}",
        where=path,
        cure="make it a file that you may read, or fetch it again",
    )
