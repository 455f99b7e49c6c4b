"""Scratch folders: marked as in use, and removed when no process uses them any more."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drupe_files.folder_marks import A_DAY, MARKS_DRAFTS, held, is_held

_UNMARKED = "drupe-unmarked-"


@contextmanager
def scratch(kind: str = "scratch", home: Path | None = None) -> Iterator[Path]:
    """An empty folder for temporary files. This also removes the folders of killed runs.

    kind: a part of its name. home: where it lies; by default where the system has temporary files.
    """
    home, prefix = home or Path(tempfile.gettempdir()), f"drupe-{kind}-"
    _remove_those_of_the_dead(home, prefix)
    unmarked = Path(tempfile.mkdtemp(prefix=_UNMARKED, dir=home))
    with held(unmarked):
        # A folder has its name only when it is marked: no other run takes it for one that a killed run has left.
        folder = unmarked.rename(unmarked.with_name(unmarked.name.replace(_UNMARKED, prefix)))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_those_of_the_dead(home: Path, prefix: str) -> None:
    """Where folders cannot be marked, and of folders that were killed before they were: those that are a day old."""
    for left in [*home.glob(f"{prefix}*"), *home.glob(f"{_UNMARKED}*")]:
        with contextlib.suppress(OSError):  # another user's, or removed by another run just now
            marked = MARKS_DRAFTS and left.name.startswith(prefix)
            if (marked or time.time() - left.stat().st_mtime > A_DAY) and not is_held(left):
                shutil.rmtree(left, ignore_errors=True)
