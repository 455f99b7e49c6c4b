"""Limits, frontiers and the choice among them."""

from __future__ import annotations

import pytest

from drupe.api import Metric, UsageError
from drupe_search_optuna.goals import choose, frontier, nearest_miss, objectives_of, unmeasured_goal
from drupe_search_optuna.settings import Goal, settings_from
from drupe_search_optuna.trials import Trial


def trial(number: int, size: float, rate: float) -> Trial:
    metrics = {"bytes": Metric("bytes", size, "bytes", "lower"), "rate": Metric("rate", rate, "tokens/s", "higher")}
    return Trial(number, {}, metrics, ("rate",))


TRIALS = [trial(1, 100, 10), trial(2, 80, 8), trial(3, 90, 7), trial(4, 60, 1), trial(5, 80, 8)]


def test_the_frontier_has_what_no_other_trial_beats_once() -> None:
    assert [each.number for each in frontier(TRIALS, objectives_of((), TRIALS[0]))] == [4, 2, 1]


def test_what_failed_is_not_on_the_frontier() -> None:
    failed = Trial(6, {}, reason="too small")
    assert failed not in frontier([*TRIALS, failed], objectives_of((), TRIALS[0]))


def test_a_goal_that_was_not_measured_is_named() -> None:
    objectives = objectives_of((), TRIALS[0])
    assert unmeasured_goal(TRIALS[1], objectives) == ""
    assert unmeasured_goal(Trial(7, {}, {"rate": TRIALS[0].metrics["rate"]}), objectives) == "bytes was not measured"


def test_the_chosen_one_is_nearest_to_the_best_of_every_goal() -> None:
    objectives = objectives_of((), TRIALS[0])
    assert choose(frontier(TRIALS, objectives), objectives).number == 2


@pytest.mark.parametrize(
    ("goal", "left"),
    [
        (Goal(metric="rate", min=8), [2, 1]),
        (Goal(metric="rate", max_worse="30%"), [2, 1]),
        (Goal(metric="rate", max_worse=1), [1]),
        (Goal(metric="bytes", min_better=20), [4, 2]),
        (Goal(metric="bytes", min_better="20%"), [4, 2]),
        (Goal(metric="bytes", min_better="41%"), []),
    ],
)
def test_limits_are_absolute_or_relative_to_the_first_trial(goal: Goal, left: list[int]) -> None:
    objectives = objectives_of(
        (Goal(metric="bytes"), Goal(metric="rate"), goal.model_copy(update={"optimize": False})), TRIALS[0]
    )
    assert [each.number for each in frontier(TRIALS, objectives)] == left


def test_the_nearest_miss_is_named_where_no_trial_keeps_to_the_limits() -> None:
    objectives = objectives_of((Goal(metric="bytes", max=50),), TRIALS[0])
    miss = nearest_miss(TRIALS, objectives)
    assert miss is not None and miss[0].number == 4 and miss[1].limits == "at most 50"


def test_goals_that_make_no_sense_are_refused() -> None:
    for goals, said in (
        ((Goal(metric="rat"),), "did you mean rate"),
        ((Goal(metric="rate", max_worse="much"),), "neither a number nor a percentage"),
        ((Goal(metric="rate", min=3, max=2),), "no value is accepted"),
        ((Goal(metric="rate", optimize=False),), "no goal is optimized"),
    ):
        with pytest.raises(UsageError) as error:
            objectives_of(goals, TRIALS[0])
        assert said in str(error.value) + (error.value.cure or "")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("latency", {"latency": {}}),
        (["latency", {"throughput": {"repeats": 2}}], {"latency": {}, "throughput": {"repeats": 2}}),
        ({"latency": {"repeats": 2}}, {"latency": {"repeats": 2}}),
    ],
)
def test_evaluators_are_names_or_names_with_their_settings(written: object, read: object) -> None:
    assert settings_from({"evaluators": written}).evaluators == read


@pytest.mark.parametrize(("written", "where"), [([5], "search.evaluators"), ([{"a": 3}], "search.evaluators.a")])
def test_evaluators_of_another_form_are_refused_with_their_place(written: object, where: str) -> None:
    with pytest.raises(UsageError, match="does not fit") as told:
        settings_from({"evaluators": written})
    assert told.value.where == where
