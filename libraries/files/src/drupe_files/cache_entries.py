"""The entries of the cache: what is kept, how large it is, when it was used last, and removing what is not in use."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drupe_files.cache import cache_folder
from drupe_files.disk import folder_bytes
from drupe_files.entry_notes import OTHER_VERSION, EntryNote, damage_of, note_problem, read_note
from drupe_files.folder_marks import A_DAY, is_held, remove_unused

PASSES, WORK = "passes", "work"
"""Folders of the cache with entries: what passes have made, and what a pass that is not finished has made so far."""
_KEY = re.compile(r"[0-9a-f]{64}")
NOTES = {"digests": _KEY, "commands": re.compile(r"[0-9a-f]{8}\.json")}
"""Folders of the cache with small files, which are made again in seconds, and how those are called."""
_DRAFT = re.compile(r"\.[0-9a-f-]{32,64}")


@dataclass(frozen=True)
class CacheEntry:
    """An entry of the cache. bytes: of its files. used: when it was used last, in seconds since 1970."""

    folder: Path
    bytes: int
    used: float

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether it is what passes have made, and not a part of it."""
        return self.folder.parent.name == PASSES

    @property
    def note(self) -> EntryNote | None:
        """What it is; None where that cannot be read, and for what is not finished."""
        return read_note(self.folder) if self.finished else None

    @property
    def foreign(self) -> bool:
        """Whether another version of Drupe has kept it, for which it may be as good as new."""
        return self.finished and note_problem(self.folder) == OTHER_VERSION

    @property
    def in_use(self) -> bool:
        """Whether a process reads it, or writes to it."""
        return is_held(self.folder)

    def damage(self) -> str:
        """What is wrong with it, in words; empty for a sound one.

        Passes check what is not finished themselves, and another version of Drupe what it has kept.
        """
        return "" if self.foreign or not self.finished else damage_of(self.folder)

    def remove(self) -> bool:
        """Remove it, unless it is in use. Returns whether it is gone."""
        return remove_unused(self.folder)


def cache_entries(root: Path | None = None) -> list[CacheEntry]:
    """The entries of the cache, those that were not used for the longest time first. root: None for the user's."""
    found = (_entry(folder) for part in (PASSES, WORK) for folder in _named(root, part, _KEY))
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
    for part in (PASSES, WORK, *NOTES):
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


def touch(folder: Path) -> None:
    """Note that an entry is used now. In a cache that is read-only, nothing is removed either."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def _remove_leftover(folder: Path) -> None:
    """A run marks the folder that it makes; one that is not a minute old may not be marked yet."""
    if time.time() - folder.stat().st_mtime > 60 and not is_held(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _notes(root: Path | None) -> Iterator[Path]:
    return (path for part, names in NOTES.items() for path in _named(root, part, names) if path.is_file())


def _named(root: Path | None, part: str, names: re.Pattern[str]) -> Iterator[Path]:
    """What lies in a folder of the cache under such names. Nothing else there is the cache's."""
    with contextlib.suppress(OSError):
        yield from [path for path in ((root or cache_folder()) / part).iterdir() if names.fullmatch(path.name)]


def _entry(folder: Path) -> CacheEntry | None:
    """None for an entry that is removed just now."""
    try:
        return CacheEntry(folder, folder_bytes(folder), folder.stat().st_mtime)
    except OSError:
        return None
