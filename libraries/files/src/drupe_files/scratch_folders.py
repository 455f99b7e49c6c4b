"""Scratch folders: marked as in use, and removed when no process uses them any more."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drupe_files.folder_marks import A_DAY, held, is_held

_SCRATCH = "drupe-scratch-"


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for temporary files. This also removes folders that killed runs have left a day ago.

    An unmarked folder that is younger may be one whose process has not marked it yet.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        with contextlib.suppress(OSError):  # another user's, or removed by another run just now
            if time.time() - left.stat().st_mtime > A_DAY and not is_held(left):
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, ignore_cleanup_errors=True) as folder, held(Path(folder)):
        yield Path(folder)
