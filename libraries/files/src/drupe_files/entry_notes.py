"""The note of a cache's entry: what it is, and the size and digest of each of its files, by which damage is found."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import Record
from drupe_files.cache import key_of
from drupe_files.digests import content_digest
from drupe_files.folder_marks import OPENED

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

FORMAT = 2
KEYS = frozenset({"format", "key", "source", "location", "passes", "files"})
"""Raised when entries are laid out in another way. It is part of their keys, so no version finds those of another."""
NOTE = "entry.json"
OTHER_VERSION = "another version of Drupe made it"


class EntryNote(Record):
    """What an entry is.

    source: the reference of its model. location: the folder in which that lay. passes: the chain that made the entry.
    files: the size and SHA-256 of each.
    """

    source: str
    location: str
    passes: str
    files: Mapping[str, tuple[int, str]]

    @property
    def bytes(self) -> int:
        """Bytes of all files but the note itself."""
        return sum(size for size, _ in self.files.values())


def write_note(folder: Path, key: str, **told: str) -> None:
    """Write the note of an entry that is complete otherwise, and will be found under `key`.

    told: `source`, `location` and `passes` of an EntryNote.
    """
    files = _files(folder)
    with _pool() as pool:
        digests = pool.map(content_digest, files.values())
    listed = {name: [path.stat().st_size, digest] for (name, path), digest in zip(files.items(), digests, strict=True)}
    note = {"format": FORMAT, "key": key, **told, "files": listed}
    (folder / NOTE).write_text(json.dumps({**note, "sha256": key_of(note)}, indent=1), encoding="utf-8")


def read_note(folder: Path) -> EntryNote | None:
    """The note of an entry; None where it has none that is whole, and of this version."""
    told, wrong = _told(folder)
    if wrong:
        return None
    files = {name: (size, sha) for name, (size, sha) in told["files"].items()}
    return EntryNote(told["source"], told["location"], told["passes"], files)


def note_problem(folder: Path) -> str:
    """What is wrong with the note of an entry, in words; empty for a whole one of this version."""
    return _told(folder)[1]


def damage_of(folder: Path) -> str:
    """What is wrong with an entry, in words; empty where every byte of it is as it was written."""
    told, wrong = _told(folder)
    return wrong or _damaged_files(folder, told["files"])


def damage_of_archive(path: Path) -> str:
    """What is wrong with an archive, which has checksums of its own; empty for a sound one."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        return f"it cannot be read: {error}"
    return f"{wrong} is not as it was written" if wrong else ""


def comment_of_archive(path: Path) -> str:
    """The comment of an archive; empty where it has none, or cannot be read."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment.decode("utf-8", "surrogateescape")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return ""


def _told(folder: Path) -> tuple[dict[str, Any], str]:
    """What the note of an entry says, and what is wrong with the note."""
    try:
        told = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        if not isinstance(told, dict):
            return {}, f"{NOTE} is damaged"
    except FileNotFoundError:
        return {}, OTHER_VERSION
    except (OSError, ValueError):
        return {}, f"{NOTE} cannot be read"
    digest = told.pop("sha256", None)
    if digest != key_of(told):
        return {}, OTHER_VERSION if told.get("format") != FORMAT else f"{NOTE} is damaged"
    if told["format"] != FORMAT or not told.keys() >= KEYS:
        return {}, OTHER_VERSION
    return told, "" if told["key"] == folder.name else "it was kept under another name"


def _damaged_files(folder: Path, listed: Mapping[str, tuple[int, str]]) -> str:
    """The first thing that is wrong with the files of an entry. Sizes are compared before any content is read."""
    found = _files(folder)
    if missing := listed.keys() - found.keys():
        return f"{min(missing)} is missing"
    if strange := found.keys() - listed.keys():
        return f"{min(strange)} does not belong to it"
    try:
        for name, (size, _) in listed.items():
            if (there := found[name].stat().st_size) != size:
                return f"{name} has {there:,} bytes instead of {size:,}"
        with _pool() as pool:
            digests = pool.map(content_digest, (found[name] for name in listed))
            wrong = [name for name, digest in zip(listed, digests, strict=True) if digest != listed[name][1]]
    except OSError as error:
        return f"{Path(str(error.filename)).name} cannot be read: {error.strerror}"
    return f"{wrong[0]} is not as it was written" if wrong else ""


def _files(folder: Path) -> dict[str, Path]:
    """The files of an entry by their path in it, but for its note and its mark."""
    found = {
        (Path(root) / name).relative_to(folder).as_posix(): Path(root) / name
        for root, _, names in os.walk(folder)
        for name in names
    }
    return {name: found[name] for name in sorted(found) if name not in (NOTE, OPENED)}


def _pool() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # no program needs it to start

    from drupe.api import usable_threads

    return ThreadPoolExecutor(usable_threads())
