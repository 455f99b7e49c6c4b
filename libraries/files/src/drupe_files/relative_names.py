"""stays_inside: whether a name in a file leads to a place inside a folder."""

from __future__ import annotations

from pathlib import PurePosixPath


def stays_inside(name: str) -> bool:
    """Whether a name with "/" is that of a file inside any folder that it is put into, on every system."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and not {"..", "\\", ":"} & {*path.parts, *name}
