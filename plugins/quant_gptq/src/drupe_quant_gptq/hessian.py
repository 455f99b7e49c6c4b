"""Hessian: the sum of x x^T over what goes into a matrix, in one array of float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

Float32 = NDArray[np.float32]

TILE = 1024
"""Columns that are summed at a time: what is held beside the sum is so many of its rows."""
ALONE = 4096
"""Columns up to which one thread computes: many small products cost several threads more in waiting than they gain,
ten times as much where other processes keep the processor busy."""


def linear_algebra(features: int, threads: int) -> threadpool_limits:
    """A context in which numpy computes with matrices of so many columns, on no more than `threads` threads."""
    return threadpool_limits(1 if features <= ALONE else threads, "blas")


class Hessian:
    """Of rows [tokens, features] that come batch by batch. Only the upper triangle is computed."""

    def __init__(self, features: int) -> None:
        self._sum: Float32 = np.zeros((features, features), np.float32)

    def add(self, rows: Float32) -> None:
        for tile in self._tiles():
            self._sum[tile, tile.start :] += rows[:, tile].T @ rows[:, tile.start :]

    def whole(self) -> Float32:
        """The symmetric matrix [features, features]; no rows may be added to it afterwards."""
        for tile in self._tiles():
            self._sum[tile.stop :, tile] = self._sum[tile, tile.stop :].T
        return self._sum

    def _tiles(self) -> list[slice]:
        features = len(self._sum)
        return [slice(start, min(start + TILE, features)) for start in range(0, features, TILE)]
