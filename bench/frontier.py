"""Points of bytes and KL divergence: ratios to a base, the frontier, and points outside another tool's frontier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LARGEST = 1.05
"""The most bytes, as a multiple of the base's, with which a rung must reach its goal in `WANTED`."""
WANTED = {"balanced": 0.4, "best": 0.2}
"""The KL divergence, in proportion to the base's, that these rungs are to stay below."""


@dataclass(frozen=True)
class Point:
    """A measured package.

    nbytes: graph and weights. kl: nats a token from the float32 source. agreement: share of tokens for which both
    predict the same next token. decode, prefill: tokens a second, all packages with the same number of threads.
    """

    name: str
    tool: str
    nbytes: int
    kl: float
    agreement: float
    perplexity: float
    decode: float
    prefill: float

    @property
    def label(self) -> str:
        """The name with the tool's."""
        return f"{self.tool} {self.name}"

    def against(self, base: Point) -> dict[str, Any]:
        """The numbers, and their ratios to those of `base`."""
        ratios = {
            "bytes_ratio": self.nbytes / base.nbytes,
            "kl_ratio": self.kl / base.kl,
            "decode_ratio": self.decode / base.decode,
        }
        return asdict(self) | ratios


def covers(one: Point, other: Point) -> bool:
    """Whether `one` is as small as `other` or smaller, and as close to the source or closer."""
    return one.nbytes <= other.nbytes and one.kl <= other.kl


def frontier(points: Iterable[Point]) -> list[Point]:
    """The points that no other point covers, in the order of their bytes."""
    every = list(points)
    best = [point for point in every if not any(covers(other, point) for other in every if other != point)]
    return sorted(best, key=lambda point: point.nbytes)


def outside(points: Iterable[Point], ours: Sequence[Point]) -> list[Point]:
    """The points that no Drupe point covers: there another tool is better."""
    return [point for point in points if not any(covers(own, point) for own in ours)]
