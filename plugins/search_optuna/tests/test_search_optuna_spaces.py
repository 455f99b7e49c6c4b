"""Which values of a workflow are searched, and what is said of those that make no sense."""

from __future__ import annotations

import random
from typing import Any

import pytest

from drupe.api import UsageError, registry
from drupe_search_optuna.spaces import filled, parameters_in


def names(document: dict[str, Any]) -> list[str]:
    return [each.name for each in parameters_in(document, registry())]


def test_several_values_in_place_of_one_are_searched_and_a_list_that_is_a_value_is_not() -> None:
    document = {
        "threads": [1, 2],
        "target": {"precision": ["int4", "int8"]},
        "options": {"block_size": [32, 64], "prepare": ["rotate", "scale"], "symmetric": True},
        "settings": {"quantize-weights": {"bits": {"choices": [4, 8]}}},
        "passes": ["build-decoder", {"quantize-weights": {"block_size": {"low": 16, "high": 64, "step": 16}}}],
    }
    assert names(document) == [
        "threads", "target.precision", "options.block_size", "settings.quantize-weights.bits",
        "passes.1.quantize-weights.block_size",
    ]  # fmt: skip


def test_a_workflow_filled_with_values_has_one_value_everywhere_and_no_search() -> None:
    document = {"options": {"block_size": [32, 64]}, "search": {"trials": 2}, "passes": [{"name": "a", "config": {}}]}
    parameters = parameters_in(document, registry())
    made = filled(document, {"options.block_size": 64}, parameters)
    assert made == {"options": {"block_size": 64}, "passes": [{"name": "a", "config": {}}]}
    assert document["options"]["block_size"] == [32, 64]


def test_true_and_1_are_two_values_and_repeated_ones_are_one() -> None:
    (parameter,) = parameters_in({"options": {"block_size": [1, True, 1]}}, registry())
    assert parameter.choices == (1, True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"low": 64, "high": 32}, "from a number up to a larger one"),
        ({"low": 32, "high": 64, "steps": 8}, "no key 'steps'"),
        ({"low": 32, "high": 64, "step": 0}, "a number above 0"),
        ({"low": 0, "high": 64, "log": True}, "starts above 0"),
        ({"low": 32, "high": 64, "step": 48}, "a step of 48 is larger than the range"),
        ({"choices": []}, "no value to choose from"),
        ({"choices": 3}, "choices are a list"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused_with_its_place(value: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        names({"options": {"block_size": value}})
    assert error.value.where == "options.block_size"


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ({"low": 16, "high": 64, "step": 16}, 4),
        ({"low": 1, "high": 3}, 3),
        ({"low": 0.0, "high": 0.3, "step": 0.1}, 4),
        ({"low": 0.5, "high": 1.0}, float("inf")),
    ],
)
def test_the_number_of_values_is_known(value: dict[str, Any], count: float) -> None:
    (parameter,) = parameters_in({"options": {"bits_per_weight": value}}, registry())
    assert parameter.count == count


def test_what_the_steps_of_a_range_do_not_reach_is_no_value_of_it() -> None:
    (parameter,) = parameters_in({"options": {"block_size": {"low": 32, "high": 100, "step": 32}}}, registry())
    assert parameter.values() == (32, 64, 96) and parameter.examples == (32, 96)


def test_a_value_is_drawn_from_a_range_of_any_size() -> None:
    (parameter,) = parameters_in({"options": {"tokens": {"low": 1, "high": 10**12}}}, registry())
    assert 1 <= parameter.drawn(random.Random(0)) <= 10**12
