"""Rows: which rows of a checkpoint's tensor a part uses. Fused, interleaved and transposed checkpoints end here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from drupe.api import Record, replace

if TYPE_CHECKING:
    from drupe_onnx import Expression


class Rows(Record):
    """Rows of a tensor, in order, as a weight expression.

    tensor: its name in the checkpoint. shape: its whole shape there. ranges: the rows that are used, one range after
    the other; empty for all. transposed: the checkpoint holds [columns, rows], and `ranges` count columns.
    index: the number of the matrix in a tensor that holds one for each expert, [experts, rows, columns]. height: of
    each matrix, where a tensor [experts * rows, columns] holds them one below the other.
    """

    tensor: str
    shape: tuple[int, ...]
    ranges: tuple[range, ...] = ()
    transposed: bool = False
    index: int | None = None
    height: int = 0

    @property
    def count(self) -> int:
        """How many rows there are."""
        own = (self.height, *self.shape[1:]) if self.height else self.shape if self.index is None else self.shape[1:]
        return sum(map(len, self.ranges)) if self.ranges else own[1 if self.transposed else 0]

    def of(self, ranges: Iterable[range]) -> Rows:
        """These ranges of a tensor of which all rows were used so far."""
        return replace(self, ranges=tuple(ranges))

    def expression(self, weights: Mapping[str, Expression]) -> Expression:
        """The rows [rows, columns], or [rows] of a vector."""
        from drupe_onnx import RowRange, Transpose, member

        source = weights[self.tensor]
        if self.index is not None and self.height:
            source = RowRange(source, self.index * self.height, (self.index + 1) * self.height)
        elif self.index is not None:
            source = member(source, self.index)
        return _chosen(Transpose(source) if self.transposed else source, self.ranges)


def _chosen(source: Expression, ranges: Sequence[range]) -> Expression:
    """The rows of `source` in these ranges: a slice where they are one run, otherwise rows by number."""
    import numpy as np

    from drupe_onnx import Array, RowRange, Take

    rows = [row for each in ranges for row in each]
    if not rows or rows == list(range(source.shape[0])):
        return source
    if rows == list(range(rows[0], rows[-1] + 1)):
        return RowRange(source, rows[0], rows[-1] + 1)
    return Take(source, Array(np.array(rows, np.int64)))


def by_head(parts: Sequence[int], groups: int) -> list[tuple[range, ...]]:
    """The rows of each part of a fused matrix that holds the parts group by group.

    parts: how many rows each part has in one group. In GPT-NeoX a group is a head: query, key and value have head_dim
    rows each. In Falcon and InternLM 2 a group shares a key: the parts have (queries a group, 1, 1) times head_dim.
    """
    stride = sum(parts)
    starts = [sum(parts[:at]) for at in range(len(parts))]
    return [
        tuple(range(group * stride + start, group * stride + start + size) for group in range(groups))
        for start, size in zip(starts, parts, strict=True)
    ]


def one_after_another(parts: Sequence[int]) -> list[tuple[range, ...]]:
    """The rows of each part of a fused matrix that holds all of the first part, then all of the second, ..."""
    return by_head(parts, 1)
