"""Kept logits: those of a source, in the shared folder, for further comparisons with it on the same text."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

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
    folder = shared_folder()
    positions = sum(len(window.inputs) for window in windows)
    keeper: _Keeper | None = None
    try:
        for chunk in chunks:
            assert chunk.rows is not None
            shape = (positions, chunk.rows.shape[-1])
            if folder is not None and keeper is None and FLOAT * shape[0] * shape[1] <= LARGEST:
                keeper = _Keeper(folder, shape)
            if keeper is not None:
                keeper.write(chunk.rows)
            yield chunk
        if keeper is not None and folder is not None:
            keeper.publish(_file(folder, key))
    finally:
        if keeper is not None:
            keeper.drop()


class _Keeper:
    """Writes rows into a file of numpy's. Where the disk does not take them, nothing is kept, and nothing fails.

    Through a memory map, a disk that is full would end the process.
    """

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        import numpy as np

        self._file: IO[bytes] | None = None
        self._path: Path | None = None
        with contextlib.suppress(OSError):
            file = tempfile.NamedTemporaryFile(dir=folder, suffix=".unfinished", delete=False)  # noqa: SIM115
            self._file, self._path = file, Path(file.name)
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})

    def write(self, rows: NDArray[Any]) -> None:
        import numpy as np

        if self._file is None:
            return
        try:
            self._file.write(np.ascontiguousarray(rows, np.float32).data)
        except OSError:
            self.drop()

    def publish(self, path: Path) -> None:
        """Give the file its name, where all of it is there."""
        if self._file is None or self._path is None:
            return
        with contextlib.suppress(OSError):
            self._file.close()
            self._path.replace(path)

    def drop(self) -> None:
        """Remove the file, unless it has its name."""
        with contextlib.suppress(OSError):  # closing writes what is left
            if self._file is not None:
                self._file.close()
        self._file = None
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


def _file(folder: Path, key: str) -> Path:
    return folder / f"logits-{key}.npy"
