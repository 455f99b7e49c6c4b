"""Joining: the files of a model whose parts were changed one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from drupe.api import ModelError
from drupe_files import file_digest

Files = Mapping[str, Path | bytes]


def joined_files(before: Files, after: Mapping[str, Files]) -> dict[str, Path | bytes]:
    """The files, with the additions, changes and removals of the parts. after: the files of each part, by role.

    Raises ModelError where two parts have changed one file in different ways.
    """
    joined = dict(before)
    changed_by: dict[str, str] = {}
    for role, files in after.items():
        for name in _changed(before, files):
            if name in changed_by and not _same(joined.get(name), files.get(name)):
                raise ModelError(
                    f"the parts '{changed_by[name]}' and '{role}' change the file '{name}' in different ways",
                    cure="leave out the pass that changes the file; if the pass is yours, set `whole = True` in it",
                )
            changed_by.setdefault(name, role)
            if name in files:
                joined[name] = files[name]
            else:
                joined.pop(name, None)
    return joined


def _changed(before: Files, after: Files) -> list[str]:
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def _same(one: Path | bytes | None, other: Path | bytes | None) -> bool:
    return one == other or (one is not None and other is not None and _digest(one) == _digest(other))


def _digest(content: Path | bytes) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else file_digest(content)
