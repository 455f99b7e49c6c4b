"""Which values of a workflow are searched, and what is said of those that make no sense."""

from __future__ import annotations

import random
from typing import Any

import pytest

from drupe.api import UsageError, registry
from drupe_search_optuna.spaces import filled, parameters_in, plain


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


TOGETHER = [{"target.precision": "int4", "options.method": "search"}, {"target.precision": "int8"}]


def test_a_choice_may_set_several_places_at_once_and_leave_out_what_another_one_sets() -> None:
    document = {
        "options": {"block_size": [32, 64]},
        "passes": ["a", {"b": {}}],
        "search": {"together": {"bits": TOGETHER, "rest": [{"passes.1.b.x": 1, "threads": 2}, {"threads": 1}]}},
    }
    parameters = parameters_in(document, registry())
    assert [each.name for each in parameters] == ["options.block_size", "search.together.bits", "search.together.rest"]
    first = {each.name: each.choices[0] for each in parameters}
    assert filled(document, first, parameters) == {
        "target": {"precision": "int4"}, "options": {"block_size": 32, "method": "search"}, "threads": 2,
        "passes": ["a", {"b": {"x": 1}}],
    }  # fmt: skip
    last = {each.name: each.choices[-1] for each in parameters}
    assert filled(document, last, parameters) == {
        "target": {"precision": "int8"}, "options": {"block_size": 64}, "threads": 1, "passes": ["a", {"b": {}}],
    }  # fmt: skip
    assert plain(TOGETHER[0]) == "precision int4 with method search"


@pytest.mark.parametrize(
    ("together", "options", "said"),
    [
        ({"bits": {"target.precision": "int4"}}, {}, "a list of mappings of places"),
        ({"bits": [{"precision": "int4"}]}, {}, "'precision' is no place that can be searched"),
        ({"bits": [{"options.method": "rtn"}]}, {"method": ["rtn", "hqq"]}, "both set options.method"),
        ({"one": [{"threads": 1}], "two": [{"threads": 2}]}, {}, "both set threads"),
    ],
)
def test_choices_for_several_places_that_make_no_sense_are_refused(
    together: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        parameters_in({"options": options, "search": {"together": together}}, registry())


def test_a_place_that_a_workflow_cannot_have_is_refused() -> None:
    document = {"passes": ["a"], "search": {"together": {"x": [{"passes.3.b.x": 1}, {"threads": 1}]}}}
    parameters = parameters_in(document, registry())
    with pytest.raises(UsageError, match=r"no place 'passes\.3\.b\.x'"):
        filled(document, {"search.together.x": {"passes.3.b.x": 1}}, parameters)


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
