"""The writer: streams a package to a folder. This is the only step in which the bytes of a model move.

Every offset is known before a byte is written, so threads take chunks from one schedule, read by position, compute, and
write by position. One more thread hashes the part of the file that is complete, while it is in the page cache.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from drupe.api import Cancelled, Context, ModelError, OutputError
from drupe_files import disk_errors, stays_inside, unreadable
from drupe_onnx.files import Files, link_or_copy
from drupe_onnx.layout import Chunk, Layout, Walk, chunks, references, serialized
from drupe_onnx.package import OnnxPackage
from drupe_onnx.shared_weights import SharedWeights, makers

_HASHED = 1 << 20  # bytes hashed at once; they stay in the cache between the read and the hash
_COPIED = 1 << 20
_GLANCE = 0.1  # seconds between the main thread's checks whether the user wants to stop
_RESERVED = 4 << 20  # bytes of the budget for the hash, the copies of small files, and the schedule itself


def write_package(package: OnnxPackage, folder: Path, context: Context) -> dict[str, str]:
    """Write graphs, weights and files into the existing `folder`; returns the SHA-256 of each file by name.

    Holds at most `context.memory_budget` bytes of weights at once, keeps `context.threads` threads busy, and reports
    bytes written to `context.progress`. Raises ModelError for weights that cannot be read or hold NaN or Inf,
    OutputError where the disk cannot be written, Cancelled when `context.cancelled` is set.
    """
    graphs = package.graph_names
    layouts = {role: Layout(model) for role, model in package.components.items()}
    beside = sum(map(_size_of, package.files.values()))
    _check_room(folder, beside + sum(layout.size for layout in layouts.values()))
    total = beside + sum(layout.written for layout in layouts.values())
    shared = SharedWeights()
    equal = {role: shared.equal(layout) for role, layout in layouts.items()}
    walks = {role: [] if equal[role] else shared.taken(layout) for role, layout in layouts.items()}
    for role in walks:
        for producer in makers(walks[role]):
            producer.prepare(context.progress)
    digests: dict[str, str] = {}
    with context.progress.task("writing", total), ThreadPoolExecutor(1) as aside:
        small = aside.submit(_write_small, package, layouts, folder, context)
        for role, layout in layouts.items():
            if layout.size:
                name = data_name(graphs[role])
                if (kept := equal[role]) is not None:
                    link_or_copy(kept.path, folder / name)
                    digests[name] = kept.digest
                    context.progress.advance(layout.written)
                    continue
                digests[name] = _write_data(folder / name, walks[role], layout.size, context)
                shared.keep(folder / name, layout, digests[name])
        digests |= small.result()
    return digests


def _write_small(package: OnnxPackage, layouts: Mapping[str, Layout], folder: Path, context: Context) -> dict[str, str]:
    """Write the graphs and the files beside them. They need no weights, so this runs while weights are written."""
    digests = {name: _write_file(_inside(folder, name), content, context) for name, content in package.files.items()}
    for role, name in package.graph_names.items():
        model = package.components[role]
        graph = serialized(model, references(model, layouts[role], data_name(name)))
        digests[name] = _write_bytes(folder / name, graph)
    return digests


def data_name(graph: str) -> str:
    """The name of the data file for a graph file of this name."""
    return f"{graph}.data"


def package_size(package: OnnxPackage, layouts: Mapping[str, Layout]) -> int:
    """Bytes that the package takes on disk, computed without reading a weight."""
    return graph_and_weight_bytes(package, layouts) + sum(map(_size_of, package.files.values()))


def graph_and_weight_bytes(package: OnnxPackage, layouts: Mapping[str, Layout]) -> int:
    """Bytes of the graphs and of their data files as they will be written, without reading a weight."""
    graphs = (
        len(serialized(model, references(model, layouts[role], data_name(package.graph_names[role]), values=False)))
        for role, model in package.components.items()
    )
    return sum(graphs) + sum(layout.size for layout in layouts.values())


def peak_bytes(layout: Layout, context: Context) -> int:
    """The most bytes of weights that writing the data file holds at once."""
    budget = context.memory_budget - _RESERVED
    largest = sorted((chunk.nbytes for chunk in chunks(layout.walks, budget, context.threads)), reverse=True)
    return max(largest[0], min(budget, sum(largest[: context.threads]))) + _RESERVED if largest else 0


# Weights


def _write_data(path: Path, walks: Sequence[Walk], size: int, context: Context) -> str:
    keep = max(1, (context.memory_budget - _RESERVED) // context.threads)
    with Files(reuse=True, keep=keep) as files, _Output(path, size) as output:
        run = _Run(walks, size, files, output, context)
        run.finish()
        return run.digest


class _Run:
    """The threads that fill one data file, and what they share."""

    def __init__(self, walks: Sequence[Walk], size: int, files: Files, output: _Output, context: Context) -> None:
        self.digest = ""
        self._files, self._output, self._context = files, output, context
        self._size = size
        self._budget = max(1, context.memory_budget - _RESERVED)
        self._chunks = chunks(walks, self._budget, context.threads)
        self._next: Chunk | None = next(self._chunks, None)
        self._busy: dict[Chunk, int] = {}
        """Chunks in work, with the lowest offset that each will still write to."""
        self._held = 0
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def finish(self) -> None:
        """Write everything. When all threads have stopped, the first error of any of them is raised."""
        work = [threading.Thread(target=self._work, daemon=True) for _ in range(self._context.threads)]
        threads = [*work, threading.Thread(target=self._hash, daemon=True)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_GLANCE)
                    if self._context.cancelled.is_set():
                        self._stop(Cancelled())
        except BaseException as error:  # Ctrl-C
            self._stop(error)
            for thread in threads:
                thread.join()
            raise
        if self._error:
            raise self._error

    def _stop(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            while chunk := self._take():
                self._files.recycle()
                self._make(chunk)
                self._give_back(chunk)
        except BaseException as error:
            self._stop(error)

    def _make(self, chunk: Chunk) -> None:
        written = 0

        def put(offset: int, values: NDArray[Any], stride: int = 0) -> None:
            nonlocal written
            if self._error:
                raise Cancelled
            self._output.write(offset, values, stride)
            written += values.nbytes

        try:
            chunk.walk.make(chunk.start, chunk.stop, self._files, put)
        except Exception as error:
            error.add_note(f"while writing '{chunk.walk.label}'")
            raise
        self._context.progress.advance(written)

    def _take(self) -> Chunk | None:
        """The next chunk, as soon as the budget has room for it. A chunk larger than the budget runs alone."""
        with self._changed:
            while not self._error and (chunk := self._next):
                if not self._busy or self._held + chunk.nbytes <= self._budget:
                    self._next = next(self._chunks, None)
                    self._busy[chunk] = chunk.walk.lowest(chunk.start)
                    self._held += chunk.nbytes
                    return chunk
                if max(chunk.nbytes, self._held) > self._budget:
                    self._files.let_go()  # the next chunk needs more than the budget
                self._changed.wait()
        return None

    def _give_back(self, chunk: Chunk) -> None:
        with self._changed:
            del self._busy[chunk]
            self._held -= chunk.nbytes
            self._changed.notify_all()

    def _hash(self) -> None:
        digest = hashlib.sha256()
        block = np.empty(_HASHED, np.uint8)
        done = 0
        try:
            while done < self._size:
                complete = self._wait_for(min(done + _HASHED, self._size))
                while done < complete:
                    part = block[: min(_HASHED, complete - done)]
                    self._files.read_into(self._output.path, done, part)
                    digest.update(part.data)
                    done += part.size
            self.digest = digest.hexdigest()
        except BaseException as error:
            self._stop(error)

    def _wait_for(self, offset: int) -> int:
        """Wait until the file is complete up to `offset`; returns how far it is complete."""
        with self._changed:
            while (complete := self._complete()) < offset:
                if self._error:
                    raise Cancelled
                self._changed.wait()
            return complete

    def _complete(self) -> int:
        """The offset up to which every byte has been written."""
        ahead = self._next.walk.lowest(self._next.start) if self._next else self._size
        return min([ahead, *self._busy.values()])


class _Output:
    """A file of a known size that threads write to by position."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        with disk_errors(path):
            self._file = path.open("xb", buffering=0)
        try:
            with disk_errors(path):
                _allocate(self._file, size)
        except BaseException:
            self._file.close()
            raise
        self._local = threading.local()
        self._handles: list[BinaryIO] = []

    def write(self, offset: int, values: NDArray[Any], stride: int = 0) -> None:
        """Write the bytes of `values` from `offset` on; with a stride, rows start that many bytes apart."""
        view = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        length = len(view) // len(values) if stride and len(values) else len(view)
        if length == stride:  # no gaps
            length = len(view)
        with disk_errors(self.path):
            for start in range(0, len(view), max(1, length)):
                self._write_all(offset, view[start : start + length])
                offset += stride

    def _write_all(self, offset: int, view: memoryview) -> None:
        while view:
            done = self._write_some(offset, view)
            offset, view = offset + done, view[done:]

    if hasattr(os, "pwrite"):

        def _write_some(self, offset: int, view: memoryview) -> int:
            return os.pwrite(self._file.fileno(), view, offset)

    else:  # Windows: the position belongs to the handle, so each thread has its own

        def _write_some(self, offset: int, view: memoryview) -> int:
            if not hasattr(self._local, "handle"):
                self._local.handle = self.path.open("r+b", buffering=0)
                self._handles.append(self._local.handle)
            self._local.handle.seek(offset)
            return int(self._local.handle.write(view))

    def __enter__(self) -> _Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with disk_errors(self.path):
            for handle in (self._file, *self._handles):
                handle.close()


def _allocate(file: Any, size: int) -> None:
    """Allocate the disk space now, so a full disk is noticed before the work. Some file systems do not support it."""
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV):
                raise
    file.truncate(size)


# Files


def _write_file(path: Path, content: Path | bytes, context: Context) -> str:
    """Copy a file's content, or write bytes. Links are followed: runtimes refuse links, as in the hub's cache."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        context.progress.advance(len(content))
        return _write_bytes(path, content)
    digest = hashlib.sha256()
    with _source(content) as source, disk_errors(path), path.open("xb") as file:
        while block := _read_block(source, content):
            context.stop_if_cancelled()
            digest.update(block)
            file.write(block)
            context.progress.advance(len(block))
    return digest.hexdigest()


@contextmanager
def _source(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error
    with file:
        yield file


def _read_block(file: BinaryIO, path: Path) -> bytes:
    try:
        return file.read(_COPIED)
    except OSError as error:
        raise unreadable(path, error) from error


def _write_bytes(path: Path, content: bytes) -> str:
    with disk_errors(path):
        path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _size_of(content: Path | bytes) -> int:
    if isinstance(content, bytes):
        return len(content)
    try:
        return content.stat().st_size
    except OSError as error:
        raise ModelError(f"the file '{content.name}' does not exist any more", where=content) from error


def _inside(folder: Path, name: str) -> Path:
    """The path of a file of the package. Raises ModelError for a name that leads out of the folder."""
    if not stays_inside(name):
        raise ModelError(f"the model has a file called '{name}', which is not allowed as a name inside a package")
    return folder / name


# The disk


def _check_room(folder: Path, needed: int) -> None:
    with disk_errors(folder):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"the disk has {_megabytes(free)} free, but the package needs {_megabytes(needed)}",
            where=folder,
            cure="free some space, or choose an output on another disk",
        )


def _megabytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f} MB"
