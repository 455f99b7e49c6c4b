"""Applying GenerationRules to logits: the logits processors of generate(), in its order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe_decoding.generation_rules import GenerationRules

NEVER = -np.inf


class LogitRules:
    """The rules for one answer. prompt: how many tokens the prompt has. limit: the length that the text may reach."""

    def __init__(self, rules: GenerationRules, prompt: int, limit: int) -> None:
        self._rules = rules
        self._prompt = prompt
        self._limit = limit

    def apply(self, logits: NDArray[Any], tokens: Sequence[int]) -> NDArray[Any]:
        """The logits [vocabulary] with the rules for the token that follows `tokens`, prompt and answer together."""
        rules = self._rules
        if not rules.asked:
            return logits
        scores = np.array(logits, np.float32)
        vocabulary, new = len(scores), len(tokens) - self._prompt
        ends = _within(rules.ends, vocabulary)
        single = [(tokens_, bias) for tokens_, bias in rules.biases if np.isfinite(bias)]
        banned = [(tokens_, bias) for tokens_, bias in rules.biases if not np.isfinite(bias)]
        _add_biases(scores, single, tokens)
        if rules.repetition_penalty != 1:
            seen = np.unique(_within(tokens, vocabulary))
            scores[seen] = np.where(
                scores[seen] < 0, scores[seen] * rules.repetition_penalty, scores[seen] / rules.repetition_penalty
            )
        if rules.no_repeat_ngram_size:
            scores[_within(_repeating(tokens, rules.no_repeat_ngram_size), vocabulary)] = NEVER
        _add_biases(scores, banned, tokens)
        if len(tokens) < rules.min_length or new < rules.min_new_tokens:
            scores[ends] = NEVER
        if rules.forced_first is not None and len(tokens) == 1:
            scores = _only((rules.forced_first,), vocabulary)
        if rules.forced_last and len(tokens) == self._limit - 1:
            scores = _only(rules.forced_last, vocabulary)
        if rules.decay is not None and new > rules.decay[0]:
            rise = np.abs(scores[ends]) * np.float32(rules.decay[1] ** (new - rules.decay[0]) - 1)
            scores[ends] += np.where(np.isfinite(scores[ends]), rise, 0)
        scores[_within(rules.suppressed, vocabulary)] = NEVER
        if new == int(self._prompt <= 1 and rules.forced_first is not None):
            scores[_within(rules.suppressed_at_first, vocabulary)] = NEVER
        return scores


class StopStrings:
    """Tells when an answer contains one of the texts that end it."""

    def __init__(self, rules: GenerationRules) -> None:
        self._texts = rules.stop_strings
        self._kept = max(map(len, self._texts), default=1) - 1
        self._tail = ""

    def reached(self, text: str) -> bool:
        """Whether the answer, which grows by `text`, now contains a stop string."""
        if not self._texts:
            return False
        grown = self._tail + text
        self._tail = grown[-self._kept :] if self._kept else ""
        return any(each in grown for each in self._texts)


def _within(tokens: Sequence[int], vocabulary: int) -> NDArray[np.int64]:
    """The tokens that have a logit."""
    found = np.asarray(tokens, np.int64)
    return found[(found >= 0) & (found < vocabulary)]


def _only(tokens: Sequence[int], vocabulary: int) -> NDArray[np.float32]:
    scores = np.full(vocabulary, NEVER, np.float32)
    scores[_within(tokens, vocabulary)] = 0
    return scores


def _add_biases(
    scores: NDArray[np.float32], biases: Sequence[tuple[tuple[int, ...], float]], tokens: Sequence[int]
) -> None:
    for sequence, bias in biases:
        before, last = sequence[:-1], sequence[-1]
        if last < len(scores) and (not before or tuple(tokens[-len(before) :]) == before):
            scores[last] += np.float32(bias)


def _repeating(tokens: Sequence[int], size: int) -> list[int]:
    """The tokens that would repeat a sequence of `size` tokens."""
    if len(tokens) < size:
        return []
    end = tuple(tokens[len(tokens) - size + 1 :])
    return [tokens[at + size - 1] for at in range(len(tokens) - size + 1) if tuple(tokens[at : at + size - 1]) == end]
