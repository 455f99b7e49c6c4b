"""Sinusoids: a table of positions that is computed and not learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Record

if TYPE_CHECKING:
    from drupe_onnx import Expression


class Sinusoids(Record):
    """A row for each position: the sine of the position times each frequency, and then the cosines.

    name: of the table in the graph.
    """

    name: str
    frequencies: tuple[float, ...]
    rows: int

    @property
    def size(self) -> int:
        """How many values a row has."""
        return 2 * len(self.frequencies)


def table(part: Sinusoids) -> Expression:
    """The table [rows, size] in float32, as transformers computes it."""
    import numpy as np

    from drupe_onnx import Array

    frequencies = np.array(part.frequencies, np.float32)
    angles = np.arange(part.rows, dtype=np.float32)[:, None] * frequencies
    return Array(np.concatenate([np.sin(angles), np.cos(angles)], 1))
