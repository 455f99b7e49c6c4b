"""Scratch folders: marked as in use, and removed when no process uses them any more."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SCRATCH = "drupe-scratch-"
A_DAY = 24 * 60 * 60
"""Age in seconds from which an unmarked scratch folder counts as unused: by then its process would have marked it."""


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for temporary files. This also removes folders that killed runs have left a day ago."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        with contextlib.suppress(OSError):  # another user's, or removed by another run just now
            if time.time() - left.stat().st_mtime > A_DAY and not is_held(left):
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, ignore_cleanup_errors=True) as folder, held(Path(folder)):
        yield Path(folder)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Mark a folder as in use while this process lives. The system removes the mark however the process ends."""
    try:
        import fcntl
    except ImportError:  # Windows: an open file inside does the same, but would also stop the publishing rename
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether a living process has marked a folder as in use."""
    try:
        import fcntl
    except ImportError:
        return False  # files that are open there cannot be removed, so nothing is lost
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
