"""Distribution: the next token's probabilities, from a row of logits, and the KL divergence of two of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import CheckFailed, Record


class Distribution(Record):
    """The probabilities of the next token, from a row of logits.

    shifted: the logits minus the largest one, float32. odds: their exponentials. total: the sum of odds, float64.
    """

    shifted: NDArray[np.float32]
    odds: NDArray[np.float32]
    total: float

    @classmethod
    def of(cls, logits: NDArray[Any], what: str) -> Distribution:
        shifted = logits.astype(np.float32)
        with np.errstate(invalid="ignore"):  # NaN and Inf are found below
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
        """KL(self || other) in nats: what is lost by using `other` instead of this distribution.

        It is sum p (log p - log q) with p = odds / total, computed without making the normalized rows.
        """
        difference = self.shifted - other.shifted
        difference *= self.odds
        mean = float(difference.sum(dtype=np.float64)) / self.total
        return mean - math.log(self.total) + math.log(other.total)
