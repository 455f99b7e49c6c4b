"""The files of a data set in a folder: as `datasets` saves it, as the hub's cache holds it, or files of one kind."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import UsageError

SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""The files that `save_to_disk` writes into the folder of a data set, and of several splits."""
KNOWN = ("train", "validation", "valid", "val", "dev", "test", "eval")
"""Names of splits, which a file's name may hold anywhere."""
ABOUT = frozenset({"readme.md", "license.txt"})
"""Files about a data set, where it has others."""


def data_files(folder: Path, asked: str | None, splits: Sequence[str], suffixes: Sequence[str]) -> list[Path]:
    """The files of the split that was asked for, or of the first of `splits` that exists.

    Without any of these: those whose names say no split; or all of them.
    suffixes: the kinds of files that may be read; the first one that is there counts. Raises UsageError for a folder
    without data, and for a split that is not there.
    """
    if (folder / SAVED_SPLITS).is_file():
        there = _json(folder / SAVED_SPLITS)["splits"]
        return _saved(folder / choose(there, asked, splits, str(folder)))
    if (folder / SAVED).is_file():
        return _saved(folder)
    folder = _snapshot(folder)
    found = _of_one_kind(folder, suffixes)
    by_split: dict[str, list[Path]] = {}
    for path in found:
        by_split.setdefault(split_of(path, folder), []).append(path)
    if asked is None and not any(split in by_split for split in splits):
        return [path for split, paths in by_split.items() if split not in KNOWN for path in paths] or found
    return by_split[choose(sorted(by_split), asked, splits, str(folder))]


def choose(there: Sequence[str], asked: str | None, splits: Sequence[str], where: str) -> str:
    """The split that was asked for; otherwise the first of `splits` that exists, or any first split."""
    if asked is not None and asked not in there:
        raise UsageError(f"there is no split '{asked}'", where=where, cure="choose one of: @" + ", @".join(there))
    return asked or next((split for split in splits if split in there), there[0])


def split_of(path: Path, folder: Path) -> str:
    """The split that a file's name or folder says, as the hub has it; without one, what stands before a hyphen."""
    words = re.split(r"[-_.\s]", path.stem)
    folders = path.parent.relative_to(folder).parts
    return next((word for word in (*words, *folders) if word in KNOWN), words[0])


def _of_one_kind(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.name.startswith("dataset_info")
    ]
    data = [path for path in files if path.name.lower() not in ABOUT]
    for of in (data, files):
        for suffix in suffixes:
            if found := [path for path in of if path.suffix.lower() == suffix]:
                return found
    kinds = ", ".join(suffixes[:-1])
    raise UsageError(f"the folder holds neither {kinds} or {suffixes[-1]} files nor a saved data set", where=folder)


def _snapshot(folder: Path) -> Path:
    """The files of a data set in the hub's cache, of the commit that its main branch had; other folders unchanged."""
    snapshots, main = folder / "snapshots", folder / "refs" / "main"
    if not snapshots.is_dir():
        return folder
    if main.is_file() and (snapshots / main.read_text().strip()).is_dir():
        return snapshots / main.read_text().strip()
    commits = sorted(path for path in snapshots.iterdir() if path.is_dir())
    return commits[0] if len(commits) == 1 else folder


def _saved(folder: Path) -> list[Path]:
    """The files that `save_to_disk` has written for one split."""
    return [folder / each["filename"] for each in _json(folder / SAVED)["_data_files"]]


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"the data set's description is broken: {error}", where=path) from error
    return found
