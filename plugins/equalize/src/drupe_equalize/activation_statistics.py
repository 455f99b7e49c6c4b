"""Statistics of a product's input: the mean and the largest magnitude of each channel, and a sample of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError

Float32 = NDArray[np.float32]


class Statistics:
    """Statistics of rows [tokens, channels] that come batch by batch.

    The sample is drawn at random. At regular distances it would contain the first token of each sequence too often, and
    first tokens often have the largest values.
    """

    def __init__(self, name: str, tokens: int, sample: int) -> None:
        """name: of the measured value, for errors. tokens: how many rows will come. sample: how many to keep."""
        self.name = name
        self.tokens = 0
        drawn = np.random.default_rng(0).choice(tokens, min(sample, tokens), replace=False)
        self._drawn = np.sort(drawn)
        self._kept: list[Float32] = []
        self._total = np.zeros(0)
        self._largest: Float32 = np.zeros(0, np.float32)

    def add(self, rows: Float32) -> None:
        """Raises ModelError for NaN and Inf."""
        size = np.abs(rows)
        total, largest = size.sum(0, dtype=np.float64), size.max(0)
        if not np.isfinite(total).all():
            raise ModelError(
                f"the input of '{self.name}' contains NaN or Inf for the calibration text",
                cure="check the source for very large weights, or calibrate in float32",
            )
        self._total = total if not self.tokens else self._total + total
        self._largest = largest if not self.tokens else np.maximum(self._largest, largest)
        first, last = np.searchsorted(self._drawn, [self.tokens, self.tokens + len(rows)])
        self._kept.append(rows[self._drawn[first:last] - self.tokens])
        self.tokens += len(rows)

    @property
    def mean(self) -> Float32:
        """The mean magnitude of each channel."""
        return (self._total / max(1, self.tokens)).astype(np.float32)

    @property
    def largest(self) -> Float32:
        """The largest magnitude of each channel."""
        return self._largest

    @property
    def sample(self) -> Float32:
        """The sampled rows."""
        return np.concatenate(self._kept)
