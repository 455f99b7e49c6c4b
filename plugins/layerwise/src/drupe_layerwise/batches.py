"""Batches: sequences of one length, and what a decoder's inputs are for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError, UsageError
from drupe_layerwise.segments import INPUT_IDS, PAST
from drupe_onnx import DecoderDescription, ir

TOKENS = 512
"""How many tokens go through a segment at once, unless one sequence has more: enough to keep matrix products busy."""


@dataclass(frozen=True)
class Batch:
    """tokens: [sequences, length]. index: its place among the batches. first: the number of its first sequence."""

    tokens: NDArray[np.int64]
    index: int
    first: int


def batches_of(sequences: Sequence[Sequence[int]]) -> list[Batch]:
    """All sequences in their order, neighbours of one length together. Raises UsageError where there is nothing."""
    if not sequences or not all(map(len, sequences)):
        raise UsageError("there is no text to run the model on", cure="give at least one sequence, none of them empty")
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
    """What goes into a decoder's graph: tokens that nothing came before."""

    def __init__(self, description: DecoderDescription | None) -> None:
        self._description = description

    def feed(self, value: ir.Value, batch: Batch) -> NDArray[Any]:
        """The array of an input of the graph. Raises ModelError for one that a decoder does not have."""
        name = value.name or ""
        if name == INPUT_IDS:
            return batch.tokens.astype(_dtype(value))
        if name == "attention_mask":
            return np.ones(batch.tokens.shape, _dtype(value))
        if name == "position_ids":
            rows, length = batch.tokens.shape
            return np.tile(np.arange(length, dtype=_dtype(value)), (rows, 1))
        if name.startswith(PAST) and value.shape is not None and len(value.shape) == 4:
            return np.zeros(self._without_tokens(value, len(batch.tokens)), _dtype(value))
        raise ModelError(f"only decoders are run block by block, and nothing is known of their input '{name}'")

    def _without_tokens(self, cache: ir.Value, rows: int) -> tuple[int, ...]:
        """The shape of a cache of no tokens: [sequences, heads, 0, head size]."""
        assert cache.shape is not None
        known = self._description
        heads = _known(cache.shape[1]) or (known.kv_heads if known else None)
        size = _known(cache.shape[3]) or (known.head_dim if known else _head_size(cache))
        if heads is None or size is None:
            raise ModelError(f"the graph does not tell the heads and their size of '{cache.name}'")
        return rows, heads, 0, size


def _known(size: object) -> int | None:
    return size if isinstance(size, int) else None


def _head_size(cache: ir.Value) -> int | None:
    """The size of a head as the attention that reads a cache tells it: its query [batch, sequence, features] is of
    num_heads heads, and of twice kv_num_heads more where key and value are packed with it."""
    for node in cache.consumers():
        query = node.inputs[0]
        features = query.shape[-1] if query is not None and query.shape is not None else None
        if "num_heads" in node.attributes and "kv_num_heads" in node.attributes and isinstance(features, int):
            packed = node.inputs[1] is None
            heads = node.attributes["num_heads"].as_int()
            return features // (heads + 2 * node.attributes["kv_num_heads"].as_int() * packed)
    return None


def _dtype(value: ir.Value) -> np.dtype[Any]:
    if value.dtype is None or value.dtype == ir.DataType.BFLOAT16:
        raise ModelError(
            f"'{value.name}' is {'of no type' if value.dtype is None else 'bfloat16'}, which runtimes do not take",
            cure="use a float32 or float16 graph of the same weights",
        )
    return value.dtype.numpy()
