"""Numbers outside of their range: the error tells the whole range."""

from __future__ import annotations

import pytest
from pydantic import Field

from drupe.api import PassConfig, UsageError, configure


class Sized(PassConfig):
    bits: float = Field(4, ge=2, le=16)
    share: float = Field(0.5, gt=0, lt=1)
    seed: int = Field(0, ge=0)
    sizes: list[float] = Field([])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("bits", 99, "bits = 99: it must be at least 2 and at most 16"),
        ("bits", float("inf"), "bits = inf: it must be at least 2 and at most 16"),
        ("bits", float("nan"), "bits = nan: it must be at least 2 and at most 16"),
        ("share", 1, "share = 1: it must be above 0 and below 1"),
        ("seed", -1, "seed = -1: it must be at least 0"),
        ("seed", "x", "seed = 'x': it must be a valid integer, unable to parse string as an integer"),
        ("sizes", [float("inf")], "sizes.0 = inf: it must be a finite number"),
    ],
)
def test_the_error_for_a_number_outside_of_its_range_tells_the_range(key: str, value: object, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        configure("pass 'size'", Sized, {key: value}, {key: f"--{key}"})
    assert caught.value.what == said
