"""The claim on an output: two runs that would write into one folder are told apart before the work of the second."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drupe.api import OutputError
from drupe_files.disk import disk_errors

LOCK = ".drupe-lock"


@contextmanager
def claimed(output: Path) -> Iterator[None]:
    """Claim the absolute path `output` for this run. Raises OutputError where another run is at work on it.

    The claim is a lock on a file beside the output. The system gives the lock up however the process ends, so the file
    of a killed run claims nothing. Where there are no locks, the second run fails when it publishes. The folders above
    the output are made, and removed again where nothing was put into them.
    """
    made = [parent for parent in output.parents if not parent.exists()]
    lock = output.with_name(f".{output.name}{LOCK}")
    with disk_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(lock, output):
            yield
    finally:
        with contextlib.suppress(OSError):  # not empty: the output exists
            for parent in made:
                parent.rmdir()


@contextmanager
def _locked(lock: Path, output: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    while True:
        with disk_errors(output):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise OutputError(
                "another run is making this output",
                where=output,
                cure="wait until it has ended, or choose another output",
            ) from None
        except OSError:  # a file system without locks
            break
        if _is_at(lock, descriptor):
            break
        os.close(descriptor)  # the run that had the lock has removed the file just now
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
