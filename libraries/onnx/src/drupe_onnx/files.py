"""Files: reads by position from many files and threads, into memory that each thread uses again."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from drupe.api import ModelError, counted

_ALIGNMENT = 64  # a cache line, which is also the best alignment for vector instructions
_CURE = "download the file again: it is cut short, or was changed after it was opened"


class Files:
    """Open files and scratch memory of one job. A context manager; closing it closes the files.

    reuse: `empty` hands out a thread's memory again after that thread has called `recycle`. The writer calls it before
    each chunk, because with fresh memory page faults would take more time than copying.
    keep: the most bytes that a thread keeps for reuse; memory beyond that is fresh each time.
    """

    def __init__(self, *, reuse: bool = False, keep: int = sys.maxsize) -> None:
        self._reuse, self._keep = reuse, keep
        self._lock = threading.Lock()
        self._descriptors: dict[Path, int] = {}
        self._handles: list[BinaryIO] = []
        self._local = threading.local()

    def read_into(self, path: Path, offset: int, buffer: NDArray[Any]) -> None:
        """Fill `buffer` (C-contiguous) with the bytes of `path` from `offset` on.

        Raises a ModelError that names file and offset where the file ends too early or cannot be read.
        """
        if not buffer.nbytes:
            return
        view = buffer.reshape(-1).view(np.uint8).data
        done = 0
        try:
            while done < len(view):
                count = self._read_some(path, offset + done, view[done:])
                if not count:
                    raise ModelError(
                        f"'{path.name}' ends at byte {offset + done}, {counted(len(view) - done, 'byte')} too early",
                        where=path,
                        cure=_CURE,
                    )
                done += count
        except OSError as error:
            raise ModelError(
                f"cannot read '{path.name}' at byte {offset + done}: {error.strerror or error}",
                where=path,
                cure=_CURE,
            ) from error

    def read(self, path: Path, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """`nbytes` bytes of `path` from `offset` on; see `read_into` and `empty`."""
        buffer = self.empty((nbytes,), np.uint8)
        self.read_into(path, offset, buffer)
        return buffer

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Uninitialised memory for an array; with `reuse`, good until this thread calls `recycle`."""
        if not self._reuse:
            return np.empty(shape, dtype)
        element = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        nbytes = element.itemsize
        for length in shape:
            nbytes *= length
        memory = self._arena().take(nbytes)
        return np.empty(shape, element) if memory is None else memory.view(element).reshape(shape)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Memory that `empty` and `read` give this thread inside the block is free again after it, as for a band."""
        if not self._reuse:
            yield
            return
        arena = self._arena()
        mark = arena.taken
        try:
            yield
        finally:
            arena.taken = mark

    @contextmanager
    def trusting(self) -> Iterator[None]:
        """Inside the block, this thread's reads are not checked for NaN and Inf: the caller checks them itself."""
        self._local.trusts = True
        try:
            yield
        finally:
            self._local.trusts = False

    @property
    def trusts(self) -> bool:
        return getattr(self._local, "trusts", False)

    def recycle(self) -> None:
        """Free all arrays that `empty` and `read` have given this thread, so that their memory is used again."""
        if self._reuse:
            self._arena().recycle(self._keep)

    def let_go(self) -> None:
        """As `recycle`, but give the memory back to the system, for other threads."""
        if self._reuse:
            self._arena().recycle(0)

    def close(self) -> None:
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            for handle in self._handles:
                handle.close()
            self._descriptors.clear()
            self._handles.clear()
            self._local = threading.local()

    def __enter__(self) -> Files:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _arena(self) -> _Arena:
        if not hasattr(self._local, "arena"):
            self._local.arena = _Arena()
        arena: _Arena = self._local.arena
        return arena

    if hasattr(os, "preadv"):

        def _read_some(self, path: Path, offset: int, view: memoryview) -> int:
            return os.preadv(self._descriptor(path), [view], offset)

        def _descriptor(self, path: Path) -> int:
            descriptor = self._descriptors.get(path)
            if descriptor is None:
                with self._lock:
                    if path not in self._descriptors:
                        self._descriptors[path] = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
                    descriptor = self._descriptors[path]
            return descriptor

    else:  # Windows and old systems: the position belongs to the handle, so each thread has its own

        def _read_some(self, path: Path, offset: int, view: memoryview) -> int:
            handle = self._handle(path)
            handle.seek(offset)
            return handle.readinto(view) or 0  # type: ignore[attr-defined]

        def _handle(self, path: Path) -> BinaryIO:
            mine: dict[Path, BinaryIO] = self._local.__dict__.setdefault("handles", {})
            if path not in mine:
                mine[path] = path.open("rb", buffering=0)
                with self._lock:
                    self._handles.append(mine[path])
            return mine[path]


def link_or_copy(source: Path, target: Path) -> None:
    """Create a hard link to a file; copy the file where the disk does not support links."""
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)


class _Arena:
    """One thread's scratch memory. It is handed out from front to back, and grows to what earlier chunks needed."""

    def __init__(self) -> None:
        self.memory: NDArray[np.uint8] = np.empty(0, np.uint8)
        self.taken = 0
        self.wanted = 0
        """How many bytes were asked for since the memory was last recycled, at most at one time."""

    def take(self, nbytes: int) -> NDArray[np.uint8] | None:
        """The next `nbytes` bytes; None where the memory is too small."""
        start = self.taken
        self.taken += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        self.wanted = max(self.wanted, self.taken)
        return None if self.taken > len(self.memory) else self.memory[start : start + nbytes]

    def recycle(self, keep: int) -> None:
        """Take all memory back, and let it grow to what was asked for, but to no more than `keep` bytes."""
        wanted = min(max(self.wanted, len(self.memory)), keep)
        if wanted != len(self.memory):
            self.memory = np.empty(0, np.uint8)  # frees the old memory before the new is allocated
            self.memory = _aligned(wanted)
        self.taken = self.wanted = 0


def _aligned(nbytes: int) -> NDArray[np.uint8]:
    memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
    skip = -memory.ctypes.data % _ALIGNMENT
    return memory[skip : skip + nbytes]
