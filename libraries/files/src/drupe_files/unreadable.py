"""The error for a file that cannot be read."""

from __future__ import annotations

from pathlib import Path

from drupe.api import ModelError


def unreadable(path: Path, error: OSError) -> ModelError:
    """The error for a file that the system refuses to read: no permission, a folder, a broken disk."""
    return ModelError(
        f"cannot read '{path.name}': {error.strerror or error}",
        where=path,
        cure="check that it is a file and that you have permission to read it, or download it again",
    )
