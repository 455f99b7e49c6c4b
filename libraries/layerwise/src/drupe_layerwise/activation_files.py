"""Values: the activations between segments, kept in files that are mapped when they are read."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import Record
from drupe_files import disk_errors


class _Stored(Record):
    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Values:
    """Arrays by name and batch, each in its own file of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stored: dict[str, dict[int, _Stored]] = {}
        self._files = 0
        with disk_errors(folder):
            folder.mkdir()

    def put(self, name: str, batch: int, array: NDArray[Any]) -> None:
        """Write an array; it replaces an earlier one of the same name and batch."""
        self._remove(name, batch)
        self._files += 1
        stored = _Stored(self._folder / f"{self._files}.bin", array.dtype, array.shape)
        with disk_errors(stored.path):
            array.tofile(stored.path)
        self._stored.setdefault(name, {})[batch] = stored

    def get(self, name: str, batch: int) -> NDArray[Any]:
        """The array, mapped from its file and read-only."""
        stored = self._stored[name][batch]
        if not math.prod(stored.shape):
            return np.zeros(stored.shape, stored.dtype)
        return np.memmap(stored.path, stored.dtype, mode="r", shape=stored.shape)

    def copy_to(self, other: Values) -> None:
        """Write all arrays to another folder as well."""
        for name, stored in self._stored.items():
            for batch in stored:
                other.put(name, batch, self.get(name, batch))

    def keep(self, names: Collection[str]) -> None:
        """Remove all arrays but those of these names."""
        for name in self._stored.keys() - set(names):
            for batch in list(self._stored[name]):
                self._remove(name, batch)
            del self._stored[name]

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def _remove(self, name: str, batch: int) -> None:
        if (stored := self._stored.get(name, {}).pop(batch, None)) is not None:
            stored.path.unlink()
