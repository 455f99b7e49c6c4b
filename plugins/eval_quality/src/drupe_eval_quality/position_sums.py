"""PositionSums: sums of KL divergence, agreement and log probabilities over the positions of a text."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from drupe_layerwise import Distribution


class PositionSums:
    """Sums over positions, in float64. The logits of one position are processed at a time."""

    def __init__(self) -> None:
        self.positions = 0
        self.surprise = 0.0
        self.reference_surprise = 0.0
        self.divergence = 0.0
        self.agreed = 0

    def add(self, token: int, logits: NDArray[Any], reference: NDArray[Any] | None) -> None:
        """Add a position. token: the next token of the text. logits, reference: [vocabulary]."""
        measured = Distribution.of(logits, "the package")
        self.positions += 1
        self.surprise += measured.surprise(token)
        if reference is not None:
            source = Distribution.of(reference, "the reference")
            self.reference_surprise += source.surprise(token)
            self.divergence += source.divergence(measured)
            self.agreed += int(logits.argmax() == reference.argmax())

    @property
    def perplexity(self) -> float:
        return _exponential(self.surprise / self.positions)

    @property
    def reference_perplexity(self) -> float:
        return _exponential(self.reference_surprise / self.positions)


def _exponential(nats: float) -> float:
    """e to the power of `nats`, limited to the range of a float: broken models exceed it."""
    return math.exp(min(nats, 700.0))
