"""Cache: a content-addressed store of what costly passes have made, and a memory of file digests."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

DIGEST_LENGTH = 64
"""Hexadecimal digits of a SHA-256."""


def cache_folder() -> Path:
    """Where the cache lives: DRUPE_CACHE, or this platform's folder for caches."""
    if chosen := os.environ.get("DRUPE_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", _home() / "AppData/Local")) / "drupe"
    if sys.platform == "darwin":
        return _home() / "Library/Caches/drupe"
    return Path(os.environ.get("XDG_CACHE_HOME", _home() / ".cache")) / "drupe"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user that the system does not know
        return Path(tempfile.gettempdir())


def leave_note(note: Path, text: str) -> None:
    """Write a file of the cache, whole or not at all; where that cannot be done, it costs time and nothing else."""
    draft = note.with_name(f".{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(note)
        finally:
            draft.unlink(missing_ok=True)


def key_of(parts: Mapping[str, Any]) -> str:
    """The 256-bit key of all that decides a result."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Cache:
    """Folders by key. One appears whole or not at all, so a killed process leaves nothing half made."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder()) / "passes"

    def find(self, key: str) -> Path | None:
        """The folder kept under `key`."""
        found = self.folder / key
        return found if found.is_dir() else None

    def drop(self, key: str) -> None:
        """Forget what is kept under `key`."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def keep(self, key: str, fill: Callable[[Path], None]) -> Path:
        """Let `fill` write into a new folder and keep it under `key`; what fails is not kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        making = self.folder / f".{key[:16]}-{uuid.uuid4().hex}"
        making.mkdir()
        try:
            fill(making)
            try:
                making.rename(self.folder / key)
            except OSError:
                if self.find(key) is None:  # not merely made by another process in the meantime
                    raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return self.folder / key


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, remembered by path, size and time of change."""
    path = path.resolve()
    state = path.stat()
    return _remembered_digest(path, state.st_size, state.st_mtime_ns)


@functools.cache
def _remembered_digest(path: Path, size: int, changed: int) -> str:
    note = cache_folder() / "digests" / key_of({"path": str(path), "size": size, "changed": changed})
    with contextlib.suppress(OSError):
        if len(remembered := note.read_text(encoding="ascii")) == DIGEST_LENGTH:
            return remembered
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    leave_note(note, digest)
    return digest
