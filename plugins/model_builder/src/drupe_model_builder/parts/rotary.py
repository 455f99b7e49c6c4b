"""Rotary: a rotary position embedding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rotary:
    """Rotates pairs of a head's elements by angles that grow with the position.

    frequencies: radians per position for each rotated pair; a pair with frequency 0 is not rotated.
    scaling: a factor on sine and cosine (YaRN has one).
    interleaved: whether element 2i is rotated with element 2i + 1; otherwise element i with element i + pairs.
    """

    frequencies: tuple[float, ...]
    scaling: float = 1.0
    interleaved: bool = False

    @property
    def width(self) -> int:
        """How many of a head's elements take part: the first ones."""
        return 2 * len(self.frequencies)
