"""Sampling draws from the tokens that top_k and top_p leave, at a temperature."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from drupe_decoding import Generation
from drupe_onnxruntime.plain.sampling import Sampler

LOGITS = np.log(np.array([0.05, 0.5, 0.25, 0.2], np.float32))


def draws(count: int = 4000, **settings: Any) -> dict[int, float]:
    """The share of each token in many draws."""
    sampler = Sampler(Generation(**{"temperature": 1.0, **settings}))
    return {token: drawn / count for token, drawn in Counter(sampler.choose(LOGITS) for _ in range(count)).items()}


def test_at_temperature_zero_the_likeliest_token_is_chosen() -> None:
    assert draws(10, temperature=0.0) == {1: 1.0}


def test_at_temperature_one_tokens_are_drawn_with_the_models_probabilities() -> None:
    shares = draws()
    assert shares[0] == pytest.approx(0.05, abs=0.02)
    assert shares[1] == pytest.approx(0.5, abs=0.04)


def test_a_higher_temperature_makes_probabilities_more_equal() -> None:
    assert draws(temperature=3.0)[1] < draws()[1] < draws(temperature=0.3)[1]


def test_top_k_leaves_the_k_likeliest_tokens() -> None:
    assert set(draws(top_k=2)) == {1, 2}


@pytest.mark.parametrize(("top_p", "left"), [(0.4, {1}), (0.6, {1, 2}), (0.9, {1, 2, 3}), (1.0, {0, 1, 2, 3})])
def test_top_p_leaves_the_fewest_tokens_whose_probabilities_reach_p(top_p: float, left: set[int]) -> None:
    assert set(draws(top_p=top_p)) == left
