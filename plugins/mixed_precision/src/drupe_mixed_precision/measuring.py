"""How much KL divergence each group costs at COARSEST: measured block by block, on a few sequences of tokens.

What one matrix costs alone would take a run of the whole model for each. Instead, for each block, two measurements are
multiplied: how far each of its matrices, rounded, moves what leaves the block, in proportion to what does when all of
them are (one run of the block for each matrix); and the divergence that rounding all of them causes at the end of the
model (one run of the model for each of a few blocks; between those it is interpolated). The divergences of single
matrices add up, within a few per cent, as long as they are small.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drupe.api import Context, disk_errors
from drupe_layerwise import Distribution, LayerByLayer, Logits, Segment, hidden_states
from drupe_mixed_precision.groups import Group
from drupe_mixed_precision.losses import COARSEST
from drupe_mixed_precision.rounded import rounded
from drupe_onnx import ir

POSITIONS = 64
"""Rows of logits that are compared at a time."""
MOST_BLOCKS = 8
"""Blocks whose effect on the end of the model is measured; a deeper model's others are interpolated."""

Rows = NDArray[np.float32]
Tokens = Sequence[Sequence[int]]


def sensitivities(model: ir.Model, groups: Sequence[Group], sequences: Tokens, context: Context) -> Mapping[str, float]:
    """The divergence, in nats a token, of each group by name. Raises Cancelled."""
    by_block: dict[int | None, list[Group]] = {}
    for group in groups:
        by_block.setdefault(group.block, []).append(group)
    outside = by_block.pop(None, [])
    blocks = {number: members for number, members in by_block.items() if number is not None}
    measured = _evenly(sorted(blocks), MOST_BLOCKS)
    with context.progress.task("measuring sensitivity", len(outside) + len(measured) + len(blocks), "runs") as progress:
        found: dict[str, float] = {}
        ends: dict[int, float] = {}
        expected = Recorded(context.scratch / "expected-logits")
        with LayerByLayer(model, sequences, context) as source:
            expected.record(source.logits(POSITIONS))
        for group in outside:
            found[group.name] = divergence(expected, model, [group], sequences, context)
            progress.advance(1)
        for number in measured:
            ends[number] = divergence(expected, model, blocks[number], sequences, context)
            progress.advance(1)
        expected.remove()
        with LayerByLayer(model, sequences, context) as runner:
            for segment in runner.segments:
                if segment.block in blocks:
                    members = blocks[segment.block]
                    shares = _shares(runner, segment, members)
                    total = _interpolated(ends, segment.block)
                    found.update({group.name: share * total for group, share in zip(members, shares, strict=True)})
                    progress.advance(1)
                if segment is not runner.segments[-1]:
                    runner.advance(segment)
    return found


class Recorded:
    """Rows of logits in a file, to be compared with more than once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shapes: list[tuple[int, ...]] = []

    def record(self, logits: Iterable[Logits]) -> None:
        """Write all of them, one chunk behind another."""
        with disk_errors(self._path), self._path.open("wb") as file:
            for each in logits:
                each.rows.tofile(file)
                self._shapes.append(each.rows.shape)

    def chunks(self) -> Iterator[Rows]:
        """They as they were, chunk by chunk."""
        with self._path.open("rb") as file:
            for shape in self._shapes:
                yield np.fromfile(file, np.float32, math.prod(shape)).reshape(shape)

    def remove(self) -> None:
        """Give the disk its space back."""
        self._path.unlink()


def divergence(
    expected: Recorded, model: ir.Model, groups: Sequence[Group], sequences: Tokens, context: Context
) -> float:
    """KL(model || model with these groups rounded), the mean over all tokens, in nats. expected: the model's logits."""
    total, tokens = 0.0, 0
    with LayerByLayer(model, sequences, context) as changed, rounded(groups, COARSEST):
        for before, after in zip(expected.chunks(), changed.logits(POSITIONS), strict=True):
            for row, other in zip(before, after.rows, strict=True):
                likely = Distribution.of(row, "the source")
                total += likely.divergence(Distribution.of(other, "the rounded model"))
            tokens += len(before)
    return max(0.0, total / tokens)


def _shares(runner: LayerByLayer, segment: Segment, members: Sequence[Group]) -> list[float]:
    """Each group's part in what moves behind a block when all of them are rounded; the parts are 1 together.

    Each token's move is taken in proportion to its hidden state, as the norms that read it do: those of a first token
    are often hundreds of times as large as the others.
    """
    plain = _stream(runner, segment)
    own = np.maximum(np.square(plain, dtype=np.float64).sum(1), np.finfo(np.float32).tiny)
    moved = []
    for group in members:
        with rounded([group], COARSEST):
            difference = np.square(_stream(runner, segment) - plain, dtype=np.float64).sum(1)
            moved.append(float((difference / own).sum()))
    total = sum(moved)
    return [each / total if total else 1 / len(moved) for each in moved]


def _stream(runner: LayerByLayer, segment: Segment) -> Rows:
    """The hidden states behind a block: [tokens, hidden], the sum of what the next block adds up before its norm."""
    parts: dict[str, list[Rows]] = {}
    runner.collect(segment, hidden_states(segment), lambda name, rows: parts.setdefault(name, []).append(rows))
    stream: Rows = np.sum([np.concatenate(rows) for rows in parts.values()], axis=0, dtype=np.float32)
    return stream


def _evenly(numbers: Sequence[int], most: int) -> list[int]:
    """All numbers, or so many of them: the first two, the last, and others evenly between."""
    if len(numbers) <= most:
        return list(numbers)
    places = np.linspace(1, len(numbers) - 1, most - 1).round().astype(int)
    return [numbers[0], *(numbers[place] for place in places)]


def _interpolated(known: Mapping[int, float], number: int) -> float:
    """Between measured blocks, on a logarithmic scale."""
    blocks = sorted(known)
    logarithms = [math.log(max(known[block], 1e-12)) for block in blocks]
    return float(np.exp(np.interp(number, blocks, logarithms)))
