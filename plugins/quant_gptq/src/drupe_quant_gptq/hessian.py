"""Hessian: the sum of x x^T over the inputs of a matrix, in one float32 array; and sums of several in files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drupe.api import Record

Float32 = NDArray[np.float32]

TILE = 512
"""How many columns are summed at a time: beside the sum, each thread holds this many of its rows."""


class Hessian:
    """The Hessian of rows [tokens, features] that come batch by batch. Only the upper triangle is computed.

    Tiles are summed in parallel. With numpy's own threads set to one, which is also faster, the sum does not depend on
    the number of threads.
    """

    def __init__(self, features: int, threads: int = 1) -> None:
        self._sum: Float32 = np.zeros((features, features), np.float32)
        self._pool = ThreadPoolExecutor(threads)

    def add(self, rows: Float32) -> None:
        def add_tile(tile: slice) -> None:
            self._sum[tile, tile.start :] += rows[:, tile].T @ rows[:, tile.start :]

        list(self._pool.map(add_tile, self._tiles()))

    def whole(self) -> Float32:
        """The symmetric matrix [features, features]; no rows may be added to it afterwards."""
        self._pool.shutdown()
        for tile in self._tiles():
            self._sum[tile.stop :, tile] = self._sum[tile, tile.stop :].T
        return self._sum

    def _tiles(self) -> list[slice]:
        features = len(self._sum)
        return [slice(start, min(start + TILE, features)) for start in range(0, features, TILE)]


class HessianInFile(Record):
    """A sum of Hessians that is kept in the file `path` between them, so that many sums take the memory of one."""

    path: Path

    def plus(self, hessian: Float32) -> Float32:
        """The sum so far and one more Hessian, which is changed."""
        if self.path.exists():
            kept = np.load(self.path, mmap_mode="r")
            for start in range(0, len(hessian), TILE):
                hessian[start : start + TILE] += kept[start : start + TILE]
            del kept
        return hessian

    def add(self, hessian: Float32) -> None:
        """Keep the sum so far and one more Hessian, which is changed."""
        np.save(self.path, self.plus(hessian))
