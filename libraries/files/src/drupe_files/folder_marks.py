"""Marks on folders: which are in use by a living process, and removing those that are not."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: it lets nobody rename a folder in which a file is open, so an open file is the mark
    fcntl = None  # type: ignore[assignment]

MARKS_DRAFTS = fcntl is not None
"""Whether a folder can be marked that is going to be renamed."""
A_DAY = 24 * 60 * 60
"""Seconds after which a folder counts as unused on a disk that has no locks."""
OPENED = ".in-use"
"""The file of a folder that is held open on Windows."""


class Mark:
    """This process's mark on a folder, until it is released. The system removes it however the process ends.

    Several processes may mark one folder.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def on(cls, folder: Path) -> Mark | None:
        """Mark a folder that is not going to be renamed; None where it is not there, or was removed just now."""
        try:
            descriptor = _open(folder)
        except OSError:
            return None
        if fcntl is not None:
            _share(descriptor)
            if not _is_still(folder, descriptor):
                os.close(descriptor)
                return None
        return cls(descriptor)

    def release(self) -> None:
        """Take the mark away."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    __del__ = release


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Mark a folder as in use while this process lives. The system removes the mark however the process ends.

    The folder may be renamed meanwhile; Windows would not allow that, so there it is not marked.
    """
    if not MARKS_DRAFTS:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _share(descriptor)
        yield
    finally:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether a living process has marked a folder as in use; on a disk without locks, whether it is a day old."""
    if fcntl is None:
        return False  # files that are open there cannot be removed, so nothing is lost
    with _alone(folder) as alone:
        return not alone


def remove_unused(folder: Path) -> bool:
    """Remove a folder, unless a process has marked it. No process finds half of it.

    Returns whether it is gone. What a killed removal leaves has a name with a dot in front.
    """
    rubbish = folder.with_name(f".{uuid.uuid4().hex}")
    with _alone(folder) as alone:
        if not alone:
            return False
        try:
            folder.rename(rubbish)
        except FileNotFoundError:
            return True
        except OSError:  # marked, on Windows; or a disk that is read-only
            return False
    shutil.rmtree(rubbish, ignore_errors=True)
    return True


def _open(folder: Path) -> int:
    if fcntl is None:
        return os.open(folder / OPENED, os.O_RDONLY | os.O_CREAT)
    return os.open(folder, os.O_RDONLY)


def _share(descriptor: int) -> None:
    """Lock with others. Who looks whether a folder is in use locks it alone for a moment, so this may wait a moment."""
    with contextlib.suppress(OSError):  # a disk without locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def _is_still(folder: Path, descriptor: int) -> bool:
    """Whether an open folder still lies where it was opened."""
    with contextlib.suppress(OSError):
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    return False


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Lock a folder alone for a moment; gives False where another process has marked it."""
    if fcntl is None:
        yield True
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield True
        return
    except PermissionError:  # another user's, of whose processes nothing is known
        yield False
        return
    try:
        yield _lock_alone(descriptor)
    finally:
        os.close(descriptor)


def _lock_alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        return time.time() - os.fstat(descriptor).st_mtime > A_DAY
    return True
