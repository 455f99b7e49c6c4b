"""Finished: what is done of a model, kept in the cache until all of it is, so that a run that was killed goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from drupe.api import cache_folder
from drupe_onnx import ExternalTensor, ir

FORGOTTEN = 30 * 24 * 3600  # seconds
"""After so long, an unfinished run is not gone on with."""
Parts = Mapping[str, Sequence[ExternalTensor]]
"""The parts of matrices (levels, scales, ...) by the name of the node that they are for; all in one file."""


class Finished:
    """Solved segments by number. A segment counts once its list of parts is there, which is written last."""

    def __init__(self, key: str) -> None:
        """key: stands for all that decides the result."""
        self._folder = cache_folder() / "work" / key
        _forget_old(self._folder.parent)

    def find(self, segment: str, path: Path) -> Parts | None:
        """The parts of a segment, their file put at `path`; None where it is not finished, or not sound any more.

        A machine that lost its power may leave any part of a file behind, and another run with the same settings
        removes both files once it is done.
        """
        data = self._folder / f"{segment}.data"
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            note = json.loads((self._folder / f"{segment}.json").read_text(encoding="utf-8"))
            parts = {
                name: [
                    ExternalTensor(path, ir.DataType[part["dtype"]], tuple(part["shape"]), part["offset"])
                    for part in parts
                ]
                for name, parts in note["parts"].items()
            }
            if note["sha256"] == _digest(data):
                _link_or_copy(data, path)
                return parts
        return None

    def keep(self, segment: str, path: Path, parts: Parts) -> None:
        """Keep a segment's parts, which lie in the file `path`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        listed = {
            name: [{"dtype": part.dtype.name, "shape": part.shape, "offset": part.offset} for part in each]
            for name, each in parts.items()
        }
        note = json.dumps({"sha256": _digest(path), "parts": listed})
        # Gone only where another run with the same settings has just finished, which has no use for this any more.
        with contextlib.suppress(FileNotFoundError):
            draft = self._folder / f".{uuid.uuid4().hex}"
            _link_or_copy(path, draft)
            draft.replace(self._folder / f"{segment}.data")
            draft.write_text(note, encoding="utf-8")
            draft.replace(self._folder / f"{segment}.json")

    def clear(self) -> None:
        """Forget all of it: everything is done. Nobody finds half of it, also where this is killed."""
        rubbish = self._folder.with_name(f".{uuid.uuid4().hex}")
        with contextlib.suppress(OSError):
            self._folder.rename(rubbish)
        shutil.rmtree(rubbish, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _forget_old(home: Path) -> None:
    """Remove what nobody has gone on with for long: a run whose settings changed never comes back for it."""
    for folder in home.glob("*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > FORGOTTEN:
                shutil.rmtree(folder, ignore_errors=True)


def _link_or_copy(source: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)
