"""Publishing: output appears whole or not at all, whatever interrupts the run, and nothing is left behind."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drupe.errors import OutputError

RECORD = "drupe.json"
_AT_FDCWD, _SWAP = -100, 2
"""Of renameat2(2) and renamex_np(2): paths as the process sees them; both names stay, each with the other's content."""
_STAGING, _OLD, _SCRATCH = ".drupe-staging-", ".drupe-old-", "drupe-scratch-"
A_DAY = 24 * 60 * 60
"""Seconds after which a scratch folder is looked at: by then whoever made it has also marked it as in use."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what a disk refuses into the error that a user understands."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: ("the disk is full", "free some room, or choose an output on another disk"),
            errno.EDQUOT: ("the disk quota is used up", "free some room, or choose an output on another disk"),
            errno.EFBIG: ("a file would be larger than may be written here", "choose an output on another disk"),
            errno.EACCES: ("no permission to write there", "choose an output folder that you may write to"),
            errno.EPERM: ("no permission to write there", "choose an output folder that you may write to"),
            errno.EROFS: ("the disk is read-only", "choose an output folder that you may write to"),
            errno.ENAMETOOLONG: ("the name is too long", "choose a shorter output"),
            errno.ENOENT: ("there is no such place to write to", "choose another output"),
            errno.ENOTDIR: ("a part of the path is a file", "choose another output"),
        }
        if error.errno not in reasons:
            raise
        what, cure = reasons[error.errno]
        raise OutputError(what, where=error.filename or path, cure=cure) from error


def prepare(output: Path, force: bool) -> None:
    """Make sure, before any work, that `output` can be published; mend what an earlier run left behind."""
    output = _absolute(output)
    with disk_errors(output):
        _repair(output)
        if output.exists() or output.is_symlink():
            _refuse_to_replace(output, force)
        if os.path.ismount(output):
            raise OutputError(
                "a disk is mounted there, which cannot be renamed", where=output, cure="-o a folder in it"
            )
        parent = next((folder for folder in output.parents if folder.exists()), None)
        if parent is None:
            raise OutputError("there is no such disk", where=output, cure="choose another output")
        if not parent.is_dir():
            raise OutputError("a part of the path is a file", where=parent, cure="choose another output")
        if not os.access(parent, os.W_OK):
            raise OutputError("no permission to write there", where=parent, cure="choose another output folder")


def refuse_overlap(output: Path, source: Path) -> None:
    """An output that holds its own source would remove it when it is replaced."""
    if output.resolve() in (source.resolve(), *source.resolve().parents):
        raise OutputError("the output would replace the model it is made from", where=output, cure="choose another")


def _refuse_to_replace(output: Path, force: bool) -> None:
    if not output.is_dir() or output.is_symlink():
        what = "a link" if output.is_symlink() else "not a folder"
        raise OutputError(f"the output exists and is {what}", where=output, cure="choose another output")
    if not any(output.iterdir()):
        return
    if not force:
        raise OutputError(
            "the output folder exists", where=output, cure="--force (force=True) replaces it, -o names another"
        )
    if not (output / RECORD).is_file():
        raise OutputError(
            f"the output folder was not made by drupe (it has no {RECORD}), so --force does not replace it",
            where=output,
            cure="choose another output, or remove the folder yourself",
        )


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """An empty folder beside `output`; whatever happens in the block, it is gone afterwards."""
    output = _absolute(output)
    folder = output.with_name(f".{output.name}{_STAGING}{uuid.uuid4().hex[:12]}")
    made = [parent for parent in output.parents if not parent.exists()]
    with disk_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    with _held(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # not empty: the output is there
                for parent in made:
                    parent.rmdir()


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for what is needed meanwhile. What killed runs have left is removed on the way, a day later."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        with contextlib.suppress(OSError):  # another user's, or removed by another run just now
            if time.time() - left.stat().st_mtime > A_DAY and not _is_held(left):
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, ignore_cleanup_errors=True) as folder, _held(Path(folder)):
        yield Path(folder)


def publish(folder: Path, output: Path, force: bool) -> Path | None:
    """Rename the staged `folder` to `output`. Where an old output is then, for the caller to remove.

    Where the system lets two folders change places, `output` is there at all times, the old one or the new one.
    Elsewhere a kill may come between two renames, which the next run mends.
    Raises OutputError for one that has come meanwhile and may not be replaced.
    """
    output = _absolute(output)
    with disk_errors(output):
        if not output.exists():
            folder.rename(output)
            return None
        _refuse_to_replace(output, force)
        aside = output.with_name(f".{output.name}{_OLD}{uuid.uuid4().hex[:12]}")
        if _exchange(folder, output):
            try:
                folder.rename(aside)
            except FileNotFoundError:  # another run has found it unheld, and removed it
                return None
            except BaseException:
                _exchange(folder, output)
                raise
            return aside
        output.rename(aside)
        try:
            folder.rename(output)
        except BaseException:
            if not output.exists():
                aside.rename(output)
            raise
    return aside


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; whether system and disk can do that and have done it."""
    paths = os.fsencode(one), os.fsencode(other)
    calls: dict[str, tuple[str, tuple[bytes | int, ...]]] = {
        "linux": ("renameat2", (_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _SWAP)),
        "darwin": ("renamex_np", (*paths, _SWAP)),
    }
    try:
        import ctypes

        name, arguments = calls[sys.platform]
        return bool(getattr(ctypes.CDLL(None), name)(*arguments) == 0)
    except (ImportError, KeyError, OSError, AttributeError):  # another system, or a C library that does not have it
        return False


def folder_bytes(folder: Path) -> int:
    """Bytes in all files of a folder and of those below it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _absolute(output: Path) -> Path:
    return Path(os.path.abspath(output))  # noqa: PTH100 - resolve() would follow a link that is the output itself


def _repair(output: Path) -> None:
    """Undo a run that was killed: bring an old output back, remove what nobody is writing to any more."""
    if not output.parent.is_dir():
        return
    for old in output.parent.glob(f".{glob.escape(output.name)}{_OLD}*"):
        if output.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(output)
    for left in output.parent.glob(f".{glob.escape(output.name)}{_STAGING}*"):
        if not _is_held(left):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Mark a folder as in use for as long as this process lives; the system lets go of it however that ends."""
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


def _is_held(folder: Path) -> bool:
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
