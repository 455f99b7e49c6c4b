"""Feeding a decoder: the input arrays for some tokens, and the caches from one step to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError, Record, unknown
from drupe_decoding.ports import (
    MASK,
    POSITIONS,
    TOKENS,
    CacheSizes,
    DecoderPorts,
    Port,
    cache_name,
    empty_cache_shape,
    unknown_input,
)

ROWS, LENGTH = "batch", "length"
"""What Task.samples calls the axes of tokens, [rows, length]."""


def token_shape(sizes: Mapping[str, int] | None, length: int) -> tuple[int, int]:
    """The rows and the length of sample tokens, as the sizes of Task.samples say. length: where these do not.

    Raises UsageError for the size of another axis.
    """
    asked = sizes or {}
    for name in asked:
        if name not in (ROWS, LENGTH):
            raise unknown("axis of the model's tokens", name, (ROWS, LENGTH))
    return asked.get(ROWS, 1), asked.get(LENGTH, length)


def input_array(port: Port, tokens: NDArray[np.int64], past: int = 0, sizes: CacheSizes | None = None) -> NDArray[Any]:
    """The array of a decoder's input for `tokens`, [rows, length], after `past` other tokens.

    A cache is given without tokens, so this works for the first step only. sizes: what the graph leaves open.
    Raises ModelError for an input that decoders do not have.
    """
    rows, length = tokens.shape
    if port.name == TOKENS:
        return tokens.astype(numpy_type(port))
    if port.name == MASK:
        return np.ones((rows, past + length), numpy_type(port))
    if port.name == POSITIONS:
        return np.tile(np.arange(past, past + length, dtype=numpy_type(port)), (rows, 1))
    if cache_name(port.name) and not past:
        return empty_cache(port, empty_cache_shape(port, rows, sizes))
    raise unknown_input(port.name)


def empty_cache(port: Port, shape: tuple[int, ...]) -> NDArray[Any]:
    """A cache of this shape, which has no tokens in it; a state of zeros."""
    return np.zeros(shape, numpy_type(port))


def numpy_type(port: Port) -> np.dtype[Any]:
    """numpy's type for a port. Raises ModelError for bfloat16 and other types that numpy does not have."""
    try:
        if port.element_type in (None, "bfloat16"):  # ml_dtypes adds bfloat16 to numpy, but runtimes refuse such arrays
            raise TypeError
        return np.dtype(port.element_type)
    except TypeError:
        raise ModelError(
            f"'{port.name}' has the element type {port.element_type or 'unknown'}, and runtimes take no such arrays",
            cure="use a float32 or float16 graph of the same weights",
        ) from None


class FeedState(Record):
    """What a decoder has read: how many tokens of each row, and the caches of them."""

    length: int
    past: Mapping[str, Any]


class DecoderFeed:
    """The inputs of a decoder for rows of tokens of one length, step after step.

    In each step, `step` gives the inputs, the caller runs the graph for `ports.outputs`, and passes the results to
    `keep`. length: how many tokens of each row the decoder has read.
    """

    def __init__(
        self,
        ports: DecoderPorts,
        sizes: CacheSizes | None = None,
        empty: Callable[[Port, tuple[int, ...]], Any] = empty_cache,
        rows: int = 1,
    ) -> None:
        """empty: makes an empty cache, for a runtime whose caches are not numpy arrays."""
        self.ports = ports
        self._empty = {
            cache.past.name: empty(cache.past, empty_cache_shape(cache.past, rows, sizes)) for cache in ports.caches
        }
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        self.length = 0
        self._past: dict[str, Any] = dict(self._empty)

    @property
    def state(self) -> FeedState:
        """Where the feed stands. It can be set back to, as long as the runtime leaves the caches that it has given."""
        return FeedState(self.length, dict(self._past))

    @state.setter
    def state(self, state: FeedState) -> None:
        self.length, self._past = state.length, dict(state.past)

    def step(self, tokens: Sequence[int] | NDArray[Any]) -> dict[str, Any]:
        """The inputs, by name, for further `tokens`: numpy arrays, and the caches as the runtime returned them.

        tokens: those of the only row, or [rows, length].
        """
        rows = np.atleast_2d(np.asarray(tokens, np.int64))
        arrays = {name: input_array(port, rows, self.length) for name, port in self.ports.plain.items()}
        self.length += rows.shape[1]
        return {**arrays, **self._past}

    def keep(self, results: Mapping[str, Any]) -> None:
        """Keep the caches among a step's outputs for the next one."""
        self._past = {cache.past.name: results[cache.present] for cache in self.ports.caches}
