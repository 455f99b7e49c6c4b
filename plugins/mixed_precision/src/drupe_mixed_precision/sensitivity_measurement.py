"""The KL divergence that each group costs at COARSEST, measured block by block on a few sequences of tokens.

To measure each matrix alone would take a run of the whole model for each. Instead, two measurements are multiplied for
each block. The first is how much rounding one matrix changes the block's output, relative to rounding all its matrices
(one run of the block for each matrix). The second is the divergence at the end of the model when all matrices of the
block are rounded (one run of the model for each of a few blocks; the others are interpolated). The divergences of
single matrices add up, within a few per cent, as long as they are small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from drupe.api import Context
from drupe_layerwise import Distribution, LayerByLayer, RecordedLogits, Segment, has_head, hidden_states
from drupe_mixed_precision.groups import Experts, Group
from drupe_mixed_precision.losses import COARSEST
from drupe_mixed_precision.rounded import rounded
from drupe_onnx import ir

POSITIONS = 64
"""How many rows of logits are compared at a time."""
MOST_BLOCKS = 8
"""How many blocks are measured at the end of the model; in a deeper model the others are interpolated."""

Rows = NDArray[np.float32]
Tokens = Sequence[Sequence[int]]


def sensitivities(
    model: ir.Model, parts: Sequence[Group | Experts], sequences: Tokens, context: Context
) -> Mapping[str, float]:
    """The divergence, in nats a token, of each part by name. Raises Cancelled."""
    by_block: dict[int | None, list[Group | Experts]] = {}
    for part in parts:
        by_block.setdefault(part.block, []).append(part)
    outside = by_block.pop(None, [])
    blocks = {number: members for number, members in by_block.items() if number is not None}
    measured = _evenly(sorted(blocks), MOST_BLOCKS)
    with context.progress.task("measuring sensitivity", len(outside) + len(measured) + len(blocks), "run") as progress:
        found: dict[str, float] = {}
        ends: dict[int, float] = {}
        expected = RecordedLogits(context.scratch / "expected-logits")
        with LayerByLayer(model, sequences, context) as source:
            expected.record(source.logits(POSITIONS))
        for part in outside:
            found[part.name] = divergence(expected, model, [part], sequences, context)
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
                    found.update({part.name: share * total for part, share in zip(members, shares, strict=True)})
                    progress.advance(1)
                if segment is not runner.segments[-1]:
                    runner.advance(segment)
    return found


def divergence(
    expected: RecordedLogits, model: ir.Model, parts: Sequence[Group | Experts], sequences: Tokens, context: Context
) -> float:
    """KL(model || model with these parts rounded), the mean over all tokens, in nats. expected: the model's logits.

    Of a model without a head: the square of the hidden states' relative change.
    """
    of_row = _row_divergence if has_head(model.graph) else _row_change
    total, tokens = 0.0, 0
    with LayerByLayer(model, sequences, context) as changed, rounded(parts, COARSEST):
        for before, after in zip(expected.chunks(), changed.logits(POSITIONS), strict=True):
            total += sum(map(of_row, before, after.rows))
            tokens += len(before)
    return max(0.0, total / tokens)


def _row_divergence(before: Rows, after: Rows) -> float:
    """KL(before || after) of one token's logits, in nats."""
    return Distribution.of(before, "the source").divergence(Distribution.of(after, "the rounded model"))


def _row_change(before: Rows, after: Rows) -> float:
    """The square of one hidden state's relative change."""
    own = float(np.square(before, dtype=np.float64).sum())
    return float(np.square(after - before, dtype=np.float64).sum()) / max(own, float(np.finfo(np.float32).tiny))


def _shares(runner: LayerByLayer, segment: Segment, members: Sequence[Group | Experts]) -> list[float]:
    """Each part's share of the change of a block's output when all parts are rounded. The shares add up to 1.

    The change of each token is divided by the size of its hidden state, as later norms do it: the hidden states of
    first tokens are often hundreds of times as large as the others.
    """
    plain = _stream(runner, segment)
    own = np.maximum(np.square(plain, dtype=np.float64).sum(1), np.finfo(np.float32).tiny)
    moved = []
    for part in members:
        with rounded([part], COARSEST):
            difference = np.square(_stream(runner, segment) - plain, dtype=np.float64).sum(1)
            moved.append(float((difference / own).sum()))
    total = sum(moved)
    return [each / total if total else 1 / len(moved) for each in moved]


def _stream(runner: LayerByLayer, segment: Segment) -> Rows:
    """The hidden states after a block, [tokens, hidden]: the sum of the values that the next block adds up."""
    parts: dict[str, list[Rows]] = {}
    runner.collect(segment, hidden_states(segment), lambda name, rows: parts.setdefault(name, []).append(rows))
    stream: Rows = np.sum([np.concatenate(rows) for rows in parts.values()], axis=0, dtype=np.float32)
    return stream


def _evenly(numbers: Sequence[int], most: int) -> list[int]:
    """All numbers, or so many of them: the first two, the last, and others spaced evenly."""
    if len(numbers) <= most:
        return list(numbers)
    places = np.linspace(1, len(numbers) - 1, most - 1).round().astype(int)
    return [numbers[0], *(numbers[place] for place in places)]


def _interpolated(known: Mapping[int, float], number: int) -> float:
    """Values for all blocks, interpolated between measured ones on a logarithmic scale."""
    blocks = sorted(known)
    logarithms = [math.log(max(known[block], 1e-12)) for block in blocks]
    return float(np.exp(np.interp(number, blocks, logarithms)))
