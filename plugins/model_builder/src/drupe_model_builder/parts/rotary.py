"""Rotary: a rotary position embedding."""

from __future__ import annotations

from drupe.api import Record


class LongRope(Record):
    """Other frequencies for all positions of a sequence that is longer than `trained` tokens."""

    trained: int
    frequencies: tuple[float, ...]


class DynamicNtk(Record):
    """Frequencies of a larger theta for all positions of a sequence of n tokens, more than `trained`.

    The theta is `theta` times (factor n / trained - (factor - 1)) to the power d / (d - 2), d elements being rotated.
    """

    trained: int
    theta: float
    factor: float


class Rotary(Record):
    """Rotates pairs of a head's elements by angles that grow with the position.

    frequencies: radians per position for each rotated pair; a pair with frequency 0 is not rotated.
    scaling: a factor on sine and cosine (YaRN has one).
    longer: how frequencies change in sequences longer than those of the training; None where they do not.
    interleaved: whether element 2i is rotated with element 2i + 1; otherwise element i with element i + pairs.
    """

    frequencies: tuple[float, ...]
    scaling: float = 1.0
    longer: LongRope | DynamicNtk | None = None
    interleaved: bool = False

    @property
    def width(self) -> int:
        """How many of a head's elements take part: the first ones."""
        return 2 * len(self.frequencies)
