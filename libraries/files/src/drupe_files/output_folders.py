"""The output: a folder that appears completely or not at all, whatever interrupts the run."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drupe.api import OutputError
from drupe_files.disk import disk_errors, refuse_unwritable
from drupe_files.folder_marks import held, is_held
from drupe_files.output_lock import claimed
from drupe_files.replaceable import refuse_to_replace

_AT_FDCWD, _SWAP = -100, 2
"""Flags of renameat2(2) and renamex_np(2): paths are relative to the working folder; the two names are exchanged."""
_STAGING, _OLD = ".drupe-staging-", ".drupe-old-"


@contextmanager
def prepared(output: Path, source: Path | None, force: bool) -> Iterator[None]:
    """Check, before any work, that `output` can be published; repair what an earlier run left behind.

    source: where the model is that the output is made of; None for an output that is made of itself.
    In the `with` block, no other run works on the output.
    """
    output = _absolute(output)
    if source is not None:
        _refuse_overlap(output, source)
    with disk_errors(output):
        _repair(output)
        refuse_to_replace(output, force)
        if os.path.ismount(output):
            raise OutputError(
                "the output is a mounted disk, which cannot be renamed", where=output, cure="-o a folder in it"
            )
    refuse_unwritable(output, "choose another output", f".{output.name}{_STAGING}")
    with claimed(output):
        yield


def _refuse_overlap(output: Path, source: Path) -> None:
    """Raise OutputError for an output that contains its own source: replacing it would remove the source."""
    if output.resolve() in (source.resolve(), *source.resolve().parents):
        raise OutputError(
            "the output would replace the model that it is made from",
            where=output,
            cure="choose another folder: -o OUT",
        )


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """An empty folder beside `output`. It is removed after the `with` block, whatever happens."""
    output = _absolute(output)
    folder = output.with_name(f".{output.name}{_STAGING}{uuid.uuid4().hex[:12]}")
    with disk_errors(output):
        folder.mkdir()
    with held(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, output: Path, force: bool) -> Path | None:
    """Rename the staged `folder` to `output`. Returns the place of the old output, for the caller to remove.

    If the system can exchange two folders, `output` exists at all times, as the old or the new one. Otherwise the
    process may be killed between two renames, which the next run repairs.
    Raises OutputError for an output that appeared meanwhile and may not be replaced.
    """
    output = _absolute(output)
    with disk_errors(output):
        if not output.exists():
            folder.rename(output)
            return None
        refuse_to_replace(output, force)
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
    """Exchange two folders in one step. Returns False if the system or the disk does not support that."""
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


def _absolute(output: Path) -> Path:
    return Path(os.path.abspath(output))  # noqa: PTH100 - resolve() would follow a link that is the output itself


def _repair(output: Path) -> None:
    """Undo a run that was killed: restore the old output, and remove folders that no process writes to any more."""
    if not output.parent.is_dir():
        return
    for old in output.parent.glob(f".{glob.escape(output.name)}{_OLD}*"):
        if output.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(output)
    for left in output.parent.glob(f".{glob.escape(output.name)}{_STAGING}*"):
        if not is_held(left):
            shutil.rmtree(left, ignore_errors=True)
