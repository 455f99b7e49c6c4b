"""Digests of files, which are remembered in the cache, and notes: small files of the cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from pathlib import Path

from drupe.api import ModelError
from drupe_files.cache import cache_folder, key_of
from drupe_files.whole_files import whole_file

DIGEST_LENGTH = 64
"""Hexadecimal digits of a SHA-256."""
LARGE = 64 << 20
"""Bytes of a file above which `quick_digest` reads samples only."""
SAMPLES, SAMPLE = 64, 4 << 10
"""How many samples are read of a large file, and the bytes of each."""


def file_stamp(path: Path) -> tuple[str, int, int]:
    """A file's stamp: absolute path, size, time of change in ns. Raises ModelError where the file does not exist."""
    try:
        status = path.stat()
    except OSError as error:
        raise ModelError(f"the file '{path.name}' does not exist any more", where=path) from error
    return str(path.absolute()), status.st_size, status.st_mtime_ns


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, remembered by path, size and time of change."""
    path = path.resolve()
    state = path.stat()
    return _remembered_digest(path, state.st_size, state.st_mtime_ns)


def content_digest(path: Path) -> str:
    """The SHA-256 of a file's content, read now: a file may be damaged without another size or time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def quick_digest(path: Path, header: int = 0) -> str:
    """A SHA-256 that takes little time for any file: of the content, or for a large file of a part of it.

    The part is the size, the first `header` bytes, and samples at equal distances.
    """
    size = path.stat().st_size
    if size <= LARGE:
        return file_digest(path)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(min(header, size)))
        for number in range(SAMPLES):
            file.seek(size * number // SAMPLES)
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


@functools.cache
def _remembered_digest(path: Path, size: int, changed: int) -> str:
    note = cache_folder() / "digests" / key_of({"path": str(path), "size": size, "changed": changed})
    with contextlib.suppress(OSError):
        if len(remembered := note.read_text(encoding="ascii")) == DIGEST_LENGTH:
            return remembered
    digest = content_digest(path)
    leave_note(note, digest)
    return digest


def leave_note(note: Path, content: str | bytes) -> None:
    """Write a file of the cache, completely or not at all. A failure is ignored: it only costs time later."""
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(note) as draft:
            draft.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
