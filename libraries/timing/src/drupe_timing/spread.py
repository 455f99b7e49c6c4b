"""Medians of repeated measurements, their spread, and whether a difference is more than noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from drupe.api import Record

CONFIDENCE = 0.95
ALIKE = 0.02
"""Smaller differences count as noise: that far apart are two processes that run the same package."""
ENOUGH = 6
"""From so many values on there is an interval with this confidence."""
WITHIN, TOO_FEW = "within the noise", "too few repeats to tell"


class Spread(Record):
    """The median of some values, and an interval around it that the median lies in with CONFIDENCE.

    sure: whether there are enough values for that. If not, the interval holds all of them.
    """

    median: float
    low: float
    high: float
    sure: bool


def spread_of(values: Sequence[float]) -> Spread:
    """The interval is between two of the values (order statistics), so it needs no assumption on their distribution."""
    ordered = sorted(values)
    left_out = 0
    while 2 * left_out + 2 < len(ordered) and _coverage(len(ordered), left_out + 1) >= CONFIDENCE:
        left_out += 1
    sure = _coverage(len(ordered), left_out) >= CONFIDENCE
    return Spread(statistics.median(ordered), ordered[left_out], ordered[-1 - left_out], sure)


def _coverage(count: int, left_out: int) -> float:
    """How likely the median lies between the values that remain without `left_out` at each end."""
    beyond: float = sum(math.comb(count, number) for number in range(left_out + 1)) / 2**count
    return 1 - 2 * beyond


class Ratio(Record):
    """How many times one package's values are those of another."""

    spread: Spread

    @property
    def verdict(self) -> str:
        """WITHIN or TOO_FEW; empty for a difference that is more than noise."""
        if not self.spread.sure:
            return TOO_FEW
        apart = self.spread.low > 1 or self.spread.high < 1
        return "" if apart and abs(self.spread.median - 1) > ALIKE else WITHIN


def ratio_of(values: Sequence[float], base: Sequence[float]) -> Ratio | None:
    """The ratio of values that were measured in turn, pair by pair; None where the base has a value of 0."""
    if not all(base):
        return None
    return Ratio(spread_of([value / other for value, other in zip(values, base, strict=True)]))
