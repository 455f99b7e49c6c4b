"""What sessions are asked for."""

from __future__ import annotations

import math

import pytest

from drupe.api import Generation, UsageError


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
    ],
)
def test_a_generation_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is .*; it must be"):
        Generation(**wrong)
