"""Kept logits: those of a source, in the shared folder, for further comparisons with it on the same text."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from drupe_eval_quality.text_windows import Chunk, Window, alone
from drupe_files import shared_folder

FLOAT = 4  # bytes of a logit
LARGEST = 1 << 30
"""Bytes of logits that are kept; those of 256 tokens with a vocabulary of 150,000 take 155 MB."""


def found_logits(key: str) -> NDArray[Any] | None:
    """The logits that were kept under a key: [positions of all windows, vocabulary]. They stay in their file."""
    import numpy as np

    if (folder := shared_folder()) is None:
        return None
    try:
        rows: NDArray[Any] = np.load(_file(folder, key), mmap_mode="r")
    except (OSError, ValueError):  # there is none, or it is damaged: they are computed again
        return None
    return rows


def with_rows(windows: Sequence[Window], positions: int, rows: NDArray[Any]) -> Iterator[Chunk]:
    """Chunks with rows of logits as reference: those of all windows, one after the other."""
    before = 0
    for chunk in alone(windows, positions):
        yield Chunk(chunk.window, chunk.start, chunk.stop, rows[before : before + len(chunk.inputs)])
        before += len(chunk.inputs)


def keeping(chunks: Iterator[Chunk], windows: Sequence[Window], key: str) -> Iterator[Chunk]:
    """The chunks, whose logits are kept in the shared folder when all of them have passed. They come in order."""
    import numpy as np

    folder = shared_folder()
    positions = sum(len(window.inputs) for window in windows)
    unfinished: Path | None = None
    kept: NDArray[Any] | None = None
    done = 0
    try:
        for chunk in chunks:
            assert chunk.rows is not None
            shape = (positions, chunk.rows.shape[-1])
            if folder is not None and unfinished is None and FLOAT * shape[0] * shape[1] <= LARGEST:
                descriptor, name = tempfile.mkstemp(dir=folder, suffix=".unfinished")
                os.close(descriptor)
                unfinished = Path(name)
                kept = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.float32, shape=shape)
            if kept is not None:
                kept[done : done + len(chunk.rows)] = chunk.rows
            done += len(chunk.rows)
            yield chunk
        if unfinished is not None and folder is not None:
            del kept
            unfinished.replace(_file(folder, key))
    finally:
        if unfinished is not None:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)


def _file(folder: Path, key: str) -> Path:
    return folder / f"logits-{key}.npy"
