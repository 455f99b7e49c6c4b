"""Batches: sequences of one length, and the decoder's inputs for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import Record, UsageError
from drupe_decoding import cache_sizes, input_array, port_of
from drupe_onnx import DecoderDescription, ir

TOKENS = 512
"""How many tokens go through a segment at once, or more if one sequence is longer: enough for fast matrix products."""


class Batch(Record):
    """tokens: [sequences, length]. index: its place among the batches. first: the number of its first sequence."""

    tokens: NDArray[np.int64]
    index: int
    first: int


def batches_of(sequences: Sequence[Sequence[int]]) -> list[Batch]:
    """All sequences in their order; neighbours of one length share a batch. Raises UsageError for an empty list."""
    if not sequences or not all(map(len, sequences)):
        raise UsageError("there is no text to run the model on", cure="give at least one sequence, and no empty one")
    batches: list[Batch] = []
    first = 0
    for rows in _neighbours(sequences):
        batches.append(Batch(np.array(rows, np.int64), len(batches), first))
        first += len(rows)
    return batches


def _neighbours(sequences: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    for length, group in itertools.groupby(sequences, len):
        while rows := list(itertools.islice(group, max(1, TOKENS // length))):
            yield rows


class Feeds:
    """The inputs of a decoder's graph for tokens without a past: the caches are empty."""

    def __init__(self, description: DecoderDescription | None) -> None:
        self._description = description

    def feed(self, value: ir.Value, batch: Batch) -> NDArray[Any]:
        """The array of an input of the graph. Raises ModelError for one that a decoder does not have."""
        return input_array(port_of(value), batch.tokens, sizes=cache_sizes(value, self._description))
