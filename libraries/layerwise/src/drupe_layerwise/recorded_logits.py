"""RecordedLogits: the logits of a model in a file, which others are compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drupe_files import disk_errors
from drupe_layerwise.layer_by_layer import Logits

Rows = NDArray[np.float32]


class RecordedLogits:
    """Rows of logits in a file, for several comparisons."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shapes: list[tuple[int, ...]] = []

    def record(self, logits: Iterable[Logits]) -> None:
        """Write all rows, chunk by chunk."""
        with disk_errors(self._path), self._path.open("wb") as file:
            for each in logits:
                each.rows.tofile(file)
                self._shapes.append(each.rows.shape)

    def chunks(self) -> Iterator[Rows]:
        """Read the rows again, in the same chunks."""
        with self._path.open("rb") as file:
            for shape in self._shapes:
                yield np.fromfile(file, np.float32, math.prod(shape)).reshape(shape)

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink()
