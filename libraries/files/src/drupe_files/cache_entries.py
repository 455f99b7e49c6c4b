"""The entries of the cache: what is kept, how large it is, when it was used last, and removing what is not in use."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from drupe.api import Record
from drupe_files.cache import cache_folder
from drupe_files.disk import folder_bytes
from drupe_files.entry_notes import (
    OTHER_VERSION,
    EntryNote,
    comment_of_archive,
    damage_of,
    damage_of_archive,
    note_problem,
    read_note,
)
from drupe_files.folder_marks import A_DAY, MARKS_DRAFTS, is_held, remove_unused

_KEY = re.compile(r"[0-9a-f]{64}")
PASSES, WORK, ACTIVATIONS, MODELS = "passes", "work", "activations", "models"
ENTRIES = {PASSES: _KEY, WORK: _KEY, ACTIVATIONS: re.compile(r"[0-9a-f]{64}\.npz"), MODELS: _KEY}
"""Folders of the cache with entries, and how those are called: what passes have made, what a pass that is not finished
has made so far, what models give to their heads, which comparisons keep, and copies of models that lie on a storage
that is slow to read. Those of ACTIVATIONS are files, the others folders."""
NOTES = {"digests": _KEY, "commands": re.compile(r"[0-9a-f]{8}\.json")}
"""Folders of the cache with small files, which are made again in seconds, and how those are called."""
_DRAFT = re.compile(r"\.[0-9a-f-]{32,64}")


class CacheEntry(Record):
    """An entry of the cache. bytes: of its files. used: when it was used last, in seconds since 1970."""

    path: Path
    bytes: int
    used: float

    @property
    def key(self) -> str:
        return self.path.stem

    @property
    def part(self) -> str:
        """The folder of the cache that it lies in: PASSES, WORK, ACTIVATIONS or MODELS."""
        return self.path.parent.name

    @property
    def note(self) -> EntryNote | None:
        """What passes have made it of what; None where that cannot be read, and for other entries."""
        return read_note(self.path) if self.part == PASSES else None

    @property
    def source(self) -> str | None:
        """The model that it was made of, as it was named; None where the entry does not say."""
        if self.part == ACTIVATIONS:
            return comment_of_archive(self.path) or None
        return note.source if (note := self.note) else None

    @property
    def foreign(self) -> bool:
        """Whether another version of Drupe has kept it, for which it may be as good as new."""
        return self.part == PASSES and note_problem(self.path) == OTHER_VERSION

    @property
    def in_use(self) -> bool:
        """Whether a process reads it, or writes to it."""
        return self.path.is_dir() and is_held(self.path)

    def damage(self) -> str:
        """What is wrong with it, in words; empty for a sound one.

        Passes check what is not finished themselves, and another version of Drupe what it has kept. Whoever reads a
        copy of a model compares its fingerprint.
        """
        if self.part == ACTIVATIONS:
            return damage_of_archive(self.path)
        return "" if self.foreign or self.part in (WORK, MODELS) else damage_of(self.path)

    def remove(self) -> bool:
        """Remove it, unless it is in use. Returns whether it is gone."""
        if self.part != ACTIVATIONS:
            return remove_unused(self.path)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        return not self.path.exists()


def cache_entries(root: Path | None = None) -> list[CacheEntry]:
    """The entries of the cache, those that were not used for the longest time first. root: None for the user's."""
    found = (_entry(path) for part, names in ENTRIES.items() for path in _named(root, part, names))
    return sorted(filter(None, found), key=lambda entry: (entry.used, entry.key))


def note_bytes(root: Path | None = None) -> int:
    """Bytes of what the cache keeps beside its entries."""
    return sum(path.stat().st_size for path in _notes(root))


def make_room(limit: float, root: Path | None = None) -> list[CacheEntry]:
    """Remove entries until those that are left have at most `limit` bytes; returns what was removed.

    What was not used for the longest time goes first, and what is in use stays. What killed runs have left goes too.
    """
    remove_leftovers(root)
    entries, removed = cache_entries(root), []
    left = sum(entry.bytes for entry in entries)
    for entry in entries:
        if left <= limit:
            break
        if entry.remove():
            removed.append(entry)
            left -= entry.bytes
    return removed


def remove_leftovers(root: Path | None = None) -> None:
    """Remove what killed runs have left half-written or half-removed."""
    for part in (*ENTRIES, *NOTES):
        for path in _named(root, part, _DRAFT):
            with contextlib.suppress(OSError):  # removed by another run just now
                if path.is_dir():
                    _remove_leftover(path)
                elif time.time() - path.stat().st_mtime > A_DAY:
                    path.unlink()


def remove_notes(root: Path | None = None) -> None:
    """Remove what the cache keeps beside its entries."""
    for path in _notes(root):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def touch(path: Path) -> None:
    """Note that an entry is used now. In a cache that is read-only, nothing is removed either."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _remove_leftover(folder: Path) -> None:
    """A run marks the folder that it makes, where it can; one that is not a minute old may not be marked yet."""
    if time.time() - folder.stat().st_mtime > (60 if MARKS_DRAFTS else A_DAY) and not is_held(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _notes(root: Path | None) -> Iterator[Path]:
    return (path for part, names in NOTES.items() for path in _named(root, part, names) if path.is_file())


def _named(root: Path | None, part: str, names: re.Pattern[str]) -> Iterator[Path]:
    """What lies in a folder of the cache under such names. Nothing else there is the cache's."""
    with contextlib.suppress(OSError):
        yield from [path for path in ((root or cache_folder()) / part).iterdir() if names.fullmatch(path.name)]


def _entry(path: Path) -> CacheEntry | None:
    """None for an entry that is removed just now."""
    try:
        state = path.stat()
        return CacheEntry(path, folder_bytes(path) if path.is_dir() else state.st_size, state.st_mtime)
    except OSError:
        return None
