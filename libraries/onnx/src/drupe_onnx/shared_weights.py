"""Shared weights: data files of earlier packages, from which a writer copies what would be computed again.

They lie in the shared folder (`drupe_files.sharing`). Beside each of them, an index says where the results of its walks
are. A walk is known by the fingerprint of what it makes: the source's tensors and every setting of the quantizer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import Record
from drupe_files import shared_folder
from drupe_files.whole_files import whole_file
from drupe_onnx.expressions.expression import Expression
from drupe_onnx.expressions.fingerprints import fingerprint
from drupe_onnx.expressions.producers import Produced, Producer
from drupe_onnx.files import Files
from drupe_onnx.layout import CHUNK, Layout, Put, Region, Walk

DATA, INDEX = ".weights", ".weights.json"
PART = 4
"""No more than one in so many bytes of the disk that are free is taken by data files that are kept."""


class KeptFile(Record):
    """A data file. digest: its SHA-256. offsets: where the results of each walk are, by the walk's key."""

    path: Path
    size: int
    digest: str
    offsets: Mapping[str, Sequence[int]]


class SharedWeights:
    """The data files in the shared folder; without one, nothing is found and nothing is kept."""

    def __init__(self) -> None:
        self._folder = shared_folder()
        self._files = [] if self._folder is None else _read(self._folder)
        self._keys: dict[Walk, str] = {}

    def equal(self, layout: Layout) -> KeptFile | None:
        """A data file that is the one of this layout; None where there is none."""
        alike = [each for each in self._files if each.size == layout.size]
        placed = _placed(layout, self._key) if alike else {}
        return next((each for each in alike if each.offsets == placed), None)

    def taken(self, layout: Layout) -> list[Walk]:
        """The walks of a layout, with copies in place of those whose results are known."""
        walks: list[Walk] = []
        for walk in layout.walks:
            key = self._key(walk) if self._files else ""
            kept = next((each for each in self._files if key in each.offsets), None)
            if kept is None:
                walks.append(walk)
            else:
                pairs = zip(kept.offsets[key], walk.regions, strict=True)
                walks += [Copied(walk, kept.path, offset, region) for offset, region in pairs]
        return walks

    def keep(self, data: Path, layout: Layout, digest: str) -> None:
        """Keep a data file that was written, if the disk has room for it."""
        if self._folder is None:
            return
        offsets = _placed(layout, self._key)
        name = uuid.uuid4().hex
        with contextlib.suppress(OSError):  # a disk that has no links, or is full: the next package computes again
            kept = sum(file.stat().st_size for file in self._folder.glob(f"*{DATA}"))
            if kept + layout.size > shutil.disk_usage(self._folder).free // PART:
                return
            os.link(data, self._folder / f"{name}{DATA}")
            with whole_file(self._folder / f"{name}{INDEX}") as draft:
                draft.write_text(json.dumps({"digest": digest, "offsets": offsets}), encoding="utf-8")

    def _key(self, walk: Walk) -> str:
        """What decides on the bytes of a walk's regions."""
        if walk not in self._keys:
            made: Any = walk.maker if isinstance(walk.maker, Expression) else Produced(walk.maker, 0)
            sizes = [region.nbytes for region in walk.regions]
            decided = json.dumps([type(walk).__name__, fingerprint(made), walk.results, sizes])
            self._keys[walk] = hashlib.sha256(decided.encode()).hexdigest()
        return self._keys[walk]


class Copied(Walk):
    """A walk over the bytes of a region, which are copied from another data file."""

    def __init__(self, walk: Walk, file: Path, offset: int, region: Region) -> None:
        self.maker = walk.maker
        self.label = walk.label
        self.regions = (region,)
        self.length = region.nbytes
        self._file, self._offset, self._region = file, offset, region

    def working_bytes(self, steps: int) -> int:
        return steps

    def make(self, start: int, stop: int, files: Files, put: Put) -> None:
        put(self._region.offset + start, files.read(self._file, self._offset + start, stop - start))

    def lowest(self, start: int) -> int:
        return self._region.offset + start

    def preferred(self, most: int) -> int:
        return min(most, CHUNK)


def makers(walks: Sequence[Walk]) -> list[Producer]:
    """The producers that have to work."""
    return [walk.maker for walk in walks if isinstance(walk.maker, Producer) and not isinstance(walk, Copied)]


def _placed(layout: Layout, key_of: Callable[[Walk], str]) -> dict[str, list[int]]:
    return {key_of(walk): [region.offset for region in walk.regions] for walk in layout.walks}


def _read(folder: Path) -> list[KeptFile]:
    found = []
    for file in sorted(folder.glob(f"*{INDEX}")):
        data = folder / (file.name.removesuffix(INDEX) + DATA)
        index = json.loads(file.read_text(encoding="utf-8"))
        found.append(KeptFile(data, data.stat().st_size, index["digest"], index["offsets"]))
    return found
