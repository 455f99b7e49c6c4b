"""The errors of disks, and the sizes of folders."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drupe.api import OutputError


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors for a disk into errors that a user understands."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: ("the disk is full", "free some space, or choose an output on another disk"),
            errno.EDQUOT: ("the disk quota is used up", "free some space, or choose an output on another disk"),
            errno.EFBIG: ("a file would be larger than the disk allows", "choose an output on another disk"),
            errno.EACCES: ("no permission to write there", "choose an output folder that you may write to"),
            errno.EPERM: ("no permission to write there", "choose an output folder that you may write to"),
            errno.EROFS: ("the disk is read-only", "choose an output folder that you may write to"),
            errno.ENAMETOOLONG: ("the name is too long", "choose a shorter output"),
            errno.ENOENT: ("the folder to write to does not exist", "choose another output"),
            errno.ENOTDIR: ("a part of the path is a file", "choose another output"),
        }
        if error.errno not in reasons:
            raise
        what, cure = reasons[error.errno]
        raise OutputError(what, where=error.filename or path, cure=cure) from error


def folder_bytes(folder: Path) -> int:
    """Bytes in all files of a folder and of those below it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
