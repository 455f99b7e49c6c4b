"""Trying settings: which are kept, and when a value is given up, with runs whose times are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from drupe.api import CheckFailed
from drupe_onnx.session_options import ARENA, SPINNING, THREADS, SessionSetting
from drupe_tune_session.telling import document_of, outcome_of, rows_of
from drupe_tune_session.trying import FAILED, FASTER, FEW, SLOWER, UNTRIED, Tuning, tune

PORTABLE = {"threads": 8, "spinning": True, "arena": True}
SETTINGS = (THREADS.trying(8, 4, 2, 1), SPINNING.trying(False), ARENA.trying(False))
JITTER = (0.0, 0.004, -0.003, 0.002, -0.004, 0.001, 0.003)


class Bench:
    """Sessions that take the time that a function of their settings says, on a clock of their own."""

    def __init__(self, time_of: Callable[[Mapping[str, Any]], float], opening: float = 0.5) -> None:
        self.now = 0.0
        self.opened: list[dict[str, Any]] = []
        self.most = 0
        self.open_now: list[dict[str, Any]] = []
        self._time_of, self._opening = time_of, opening
        self._jitter = self._jitters()

    @staticmethod
    def _jitters() -> Iterator[float]:
        while True:
            yield from JITTER

    def open(self, changes: Mapping[str, Any]) -> None:
        if dict(changes) not in self.open_now:
            self.now += self._opening
            self.opened.append(dict(changes))
            self.open_now.append(dict(changes))
            self.most = max(self.most, len(self.open_now))

    def close(self, changes: Mapping[str, Any]) -> None:
        if dict(changes) in self.open_now:
            self.open_now.remove(dict(changes))

    def cost(self, changes: Mapping[str, Any]) -> float:
        assert dict(changes) in self.open_now
        time = self._time_of(changes) * (1 + next(self._jitter))
        self.now += time
        return time * 1e3


def tuned(bench: Bench, settings: tuple[SessionSetting, ...] = SETTINGS, seconds: float = 60) -> Tuning:
    return tune(bench, settings, PORTABLE, seconds, clock=lambda: bench.now)


def by_threads(times: Mapping[int, float]) -> Callable[[Mapping[str, Any]], float]:
    return lambda changes: times[changes.get("threads", 8)]


def test_what_is_faster_is_kept_and_compared_once_more_with_the_portable_settings() -> None:
    found = tuned(Bench(by_threads({8: 0.1, 4: 0.08, 2: 0.12, 1: 0.2})))
    assert found.chosen == {"threads": 4}
    assert found.last is not None and found.last.against == {} and found.last.changes == {"threads": 4}
    assert [(each.changes.get("threads"), each.verdict) for each in found.trials[:2]] == [(4, FASTER), (2, SLOWER)]
    handling, told = outcome_of(found, {"threads": 8})
    assert handling == "tuned" and told.startswith("threads 4 in place of threads 8: 1.25 times as fast (1.2")
    assert document_of(found, {"threads": 8})["against_portable"]["ratio"]["median"] == pytest.approx(0.8, abs=0.01)


def test_the_next_setting_is_tried_on_top_of_what_was_kept_before() -> None:
    found = tuned(
        Bench(lambda changes: 0.1 * (0.8 if "threads" in changes else 1) * (0.9 if "arena" in changes else 1))
    )
    assert found.chosen["arena"] is False and "threads" in found.chosen
    assert found.trials[-1].against == {key: each for key, each in found.chosen.items() if key != "arena"}


def test_values_after_a_slower_one_are_not_tried_where_they_are_ordered() -> None:
    bench = Bench(by_threads({8: 0.1, 4: 0.15, 2: 0.05, 1: 0.05}))
    assert tuned(bench).chosen == {}
    assert [each["threads"] for each in bench.opened if "threads" in each] == [4]


def test_a_difference_within_the_noise_keeps_the_portable_settings() -> None:
    bench = Bench(lambda changes: 0.1 if not changes else 0.0985)
    found = tuned(bench)
    assert found.chosen == {} and found.last is None
    assert all(each.verdict == "within the noise" for each in found.trials)
    assert outcome_of(found, {})[1].endswith("no other value is faster beyond the noise")


def test_what_is_faster_by_chance_alone_is_not_kept() -> None:
    """A value that was faster, and is not when it is compared with the portable settings at the end."""
    bench = Bench(lambda changes: 0.1 if not changes or bench.opened.count({}) > 1 else 0.05)
    found = tuned(bench, (SPINNING.trying(False), ARENA.trying(False)))
    assert FASTER in [each.verdict for each in found.trials]
    assert found.last is not None and found.last.verdict == "within the noise" and found.chosen == {}
    assert "compared once more" in outcome_of(found, {})[1]


def test_a_hopeless_value_takes_two_rounds_and_one_that_looks_no_faster_three() -> None:
    found = tuned(Bench(lambda changes: {False: 0.3}.get(changes.get("spinning"), 0.1)), SETTINGS[1:])
    assert [len(each.ratios) for each in found.trials] == [2, FEW]


def test_two_sessions_are_open_at_a_time() -> None:
    bench = Bench(by_threads({8: 0.1, 4: 0.08, 2: 0.06, 1: 0.05}))
    assert tuned(bench).chosen == {"threads": 1} and bench.most == 2


def test_what_cannot_be_opened_is_a_trial_with_its_reason() -> None:
    class Refusing(Bench):
        def open(self, changes: Mapping[str, Any]) -> None:
            if changes.get("spinning") is False:
                self.open_now.clear()
                raise CheckFailed("it does not spin")
            super().open(changes)

    found = tuned(Refusing(lambda changes: 0.1), SETTINGS[1:])
    assert [each.verdict for each in found.trials] == [FAILED, "within the noise"]
    assert "failed: it does not spin" in rows_of(found)[0]


def test_a_package_that_does_not_run_as_it_is_is_an_error() -> None:
    class Broken(Bench):
        def open(self, changes: Mapping[str, Any]) -> None:
            raise CheckFailed("no")

    with pytest.raises(CheckFailed):
        tuned(Broken(lambda changes: 0.1))


def test_the_time_is_kept_and_what_was_not_tried_is_said() -> None:
    bench = Bench(lambda changes: 0.5, opening=1.0)
    found = tuned(bench, SETTINGS[1:], seconds=5)
    assert [each.verdict for each in found.trials] == ["within the noise", UNTRIED]
    assert bench.now <= 6 and "there was no time for 1 more" in outcome_of(found, {})[1]
    large = Bench(lambda changes: 5.0, opening=8.0)
    found = tuned(large, seconds=10)
    assert large.now < 14 and found.chosen == {} and "were not enough" in outcome_of(found, {})[1]


def test_a_faster_value_that_cannot_be_confirmed_in_time_is_not_kept() -> None:
    bench = Bench(lambda changes: 0.5 if changes else 1.0, opening=0.1)
    found = tuned(bench, SETTINGS[1:2], seconds=11.5)
    assert found.trials[0].verdict == FASTER and found.chosen == {} and bench.now < 11.5 * 1.3 + 1
    assert "no time to make sure" in outcome_of(found, {})[1]


def test_a_user_who_wants_to_stop_stops_it() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(Bench(lambda changes: 0.1), SETTINGS, PORTABLE, 60, stop=stop, clock=lambda: 0.0)
