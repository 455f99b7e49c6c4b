"""Sampling: choosing the next token from logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drupe_decoding import Generation


class Sampler:
    """Takes the likeliest token, or draws one from those that `top_k` and then `top_p` leave."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._random = np.random.default_rng(abs(generation.seed))

    def choose(self, logits: NDArray[np.floating]) -> int:
        """The next token; logits: [vocabulary]."""
        if self._generation.temperature == 0:
            return int(logits.argmax())
        order = np.argsort(-logits, kind="stable")
        if self._generation.top_k:
            order = order[: self._generation.top_k]
        scaled = logits[order].astype(np.float64) / self._generation.temperature
        odds = np.exp(scaled - scaled[0])
        odds /= odds.sum()
        kept = int(np.searchsorted(odds.cumsum(), self._generation.top_p)) + 1
        odds = odds[:kept] / odds[:kept].sum()
        return int(order[self._random.choice(len(odds), p=odds)])
