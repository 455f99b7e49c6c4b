"""Finished: solved segments of a model, kept in the cache so that a run that was killed can continue."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from drupe_files import Mark, cache_folder, content_digest, remove_unused
from drupe_files.whole_files import whole_file
from drupe_onnx import ExternalTensor, ir, link_or_copy

FORGOTTEN = 30 * 24 * 3600  # seconds
"""After this time, an unfinished run is removed."""
Parts = Mapping[str, Sequence[ExternalTensor]]
"""The parts of matrices (levels, scales, ...) by the name of their node; all in one file."""


class Finished:
    """Solved segments by number. A segment is finished when its list of parts exists; the list is written last."""

    def __init__(self, key: str) -> None:
        """key: a digest of everything that decides the result."""
        self._folder = cache_folder() / "work" / key
        self._mark = Mark.on(self._folder)
        """Other runs leave what is in use. None as long as nothing is kept."""
        _forget_old(self._folder.parent)

    def keeps(self, segment: str) -> bool:
        """Whether a segment was solved in an earlier run; `find` says whether it is sound."""
        return (self._folder / f"{segment}.json").is_file()

    def find(self, segment: str, path: Path) -> Parts | None:
        """The parts of a segment, with their file put at `path`; None where the segment is unfinished or damaged.

        After a loss of power, any part of a file may be missing.
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
            if note["sha256"] == content_digest(data):
                link_or_copy(data, path)
                return parts
        return None

    def keep(self, segment: str, path: Path, parts: Parts) -> None:
        """Keep a segment's parts, which lie in the file `path`.

        Where the disk of the cache refuses that, a run that is killed does not go on after this segment.
        """
        listed = {
            name: [{"dtype": part.dtype.name, "shape": part.shape, "offset": part.offset} for part in each]
            for name, each in parts.items()
        }
        note = json.dumps({"sha256": content_digest(path), "parts": listed})
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._mark = Mark.on(self._folder)
            with whole_file(self._folder / f"{segment}.data") as draft:
                link_or_copy(path, draft)
            with whole_file(self._folder / f"{segment}.json") as draft:
                draft.write_text(note, encoding="utf-8")

    def clear(self) -> None:
        """Remove all segments, because the pass is finished, unless another run with the same settings uses them."""
        if self._mark is not None:
            self._mark.release()
        remove_unused(self._folder)


def _forget_old(home: Path) -> None:
    """Remove old unfinished runs: a run with other settings never uses them again."""
    for folder in home.glob("*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > FORGOTTEN:
                remove_unused(folder)
