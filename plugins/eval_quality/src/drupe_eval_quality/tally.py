"""Tally: what the logits of one position after another add up to."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from drupe_layerwise import Distribution


class Tally:
    """Sums over positions, in float64. A row of the vocabulary at a time is held, whatever the number of positions."""

    def __init__(self) -> None:
        self.positions = 0
        self.surprise = 0.0
        self.reference_surprise = 0.0
        self.divergence = 0.0
        self.agreed = 0

    def add(self, token: int, logits: NDArray[Any], reference: NDArray[Any] | None) -> None:
        """Count a position. token: what follows in the text. logits, reference: [vocabulary]."""
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
    """Of models that are broken, too: what would be too large for a number is the largest."""
    return math.exp(min(nats, 700.0))
