"""The shared folder: where runs of one program keep what later ones may take over, such as the trials of a search.

It lasts as long as the program wants. What is in it was made by the same versions, and is not checked again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_FOLDER: ContextVar[Path | None] = ContextVar("shared folder", default=None)


@contextmanager
def sharing(folder: Path | None) -> Iterator[None]:
    """Let what runs inside the block share what it makes, in a folder that exists; None shares nothing."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def shared_folder() -> Path | None:
    """The folder of the innermost block; None outside of one."""
    return _FOLDER.get()
