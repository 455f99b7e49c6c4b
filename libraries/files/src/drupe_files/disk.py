"""The errors of disks, and the sizes of folders."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drupe.api import OutputError

_FULL = "free some space, or choose an output on another disk"
_ELSEWHERE = "choose an output folder that you may write to"
REASONS = {
    errno.ENOSPC: ("the disk is full", _FULL),
    errno.EDQUOT: ("the disk quota is used up", _FULL),
    errno.EFBIG: ("a file would be larger than the disk allows", "choose an output on another disk"),
    errno.EACCES: ("no permission to write there", _ELSEWHERE),
    errno.EPERM: ("no permission to write there", _ELSEWHERE),
    errno.EROFS: ("the disk is read-only", _ELSEWHERE),
    errno.EIO: ("the disk reports an error", "choose an output on another disk"),
    errno.EBUSY: ("another program uses it", "close that program, or choose another output"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter output"),
    errno.ENOENT: ("the folder to write to does not exist", "choose another output"),
    errno.ENOTDIR: ("a part of the path is a file", "choose another output"),
    errno.EISDIR: ("it is a folder, and a file is to be written", "choose another output"),
}
"""What the system's errors for a disk mean to a user, and what mends them."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors for a disk into errors that a user understands."""
    try:
        yield
    except OSError as error:
        if error.errno not in REASONS:
            raise
        what, cure = REASONS[error.errno]
        raise OutputError(what, where=error.filename or path, cure=cure) from error


def refuse_unwritable(path: Path, cure: str, prefix: str = ".") -> None:
    """Make sure that a folder can be made at the absolute `path`: one is made beside it and removed again.

    A disk may be read-only, or the system's own (/proc), whatever the permissions say. prefix: how names of folders
    begin that will be made beside it. Raises OutputError.
    """
    try:
        parent = next((folder for folder in path.parents if folder.exists()), None)
        if parent is None:
            raise OutputError("its disk does not exist", where=path, cure=cure)
        if not parent.is_dir():
            raise OutputError("a part of the path is a file", where=parent, cure=cure)
        tried = parent / f"{prefix}{uuid.uuid4().hex[:12]}"
        tried.mkdir()
        tried.rmdir()
    except OSError as error:
        what, _ = REASONS.get(error.errno or 0, ("", ""))
        if not what or error.errno == errno.ENOENT:
            what = f"the system lets nobody make a folder in {parent}"
        raise OutputError(what, where=path, cure=cure) from error


def folder_bytes(folder: Path) -> int:
    """Bytes in all files of a folder and of those below it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
