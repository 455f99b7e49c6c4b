"""Distribution: what a row of logits says of the next token, and how far two of them are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import CheckFailed


@dataclass(frozen=True)
class Distribution:
    """What a row of logits says of the next token.

    shifted: the logits less the largest one, float32. odds: their exponentials. total: the sum of those, float64.
    """

    shifted: NDArray[np.float32]
    odds: NDArray[np.float32]
    total: float

    @classmethod
    def of(cls, logits: NDArray[Any], what: str) -> Distribution:
        shifted = logits.astype(np.float32)
        with np.errstate(invalid="ignore"):  # what is not finite is found below
            shifted -= shifted.max()
        odds = np.exp(shifted)
        total = float(odds.sum(dtype=np.float64))
        if not (math.isfinite(total) and math.isfinite(shifted.min())):
            raise CheckFailed(f"the logits of {what} are not finite")
        return cls(shifted, odds, total)

    def surprise(self, token: int) -> float:
        """The negative logarithm of the token's probability, in nats."""
        return math.log(self.total) - float(self.shifted[token])

    def divergence(self, other: Distribution) -> float:
        """KL(self || other) in nats: what is lost where `other` is taken for this distribution.

        sum p (log p - log q) with p = odds / total: the normalized rows themselves are never made.
        """
        difference = self.shifted - other.shifted
        difference *= self.odds
        mean = float(difference.sum(dtype=np.float64)) / self.total
        return mean - math.log(self.total) + math.log(other.total)
