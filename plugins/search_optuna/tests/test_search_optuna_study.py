"""What a folder keeps of the trials of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from drupe.api import Metric, OutputError, PlanError, asdict
from drupe_search_optuna.goals import objectives_of
from drupe_search_optuna.settings import Goal, SearchSettings
from drupe_search_optuna.spaces import Parameter
from drupe_search_optuna.study import Study
from drupe_search_optuna.trials import Trial, failed, refuse_stopped


def test_the_folder_of_a_study_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a?b {c} 100%25 #d"
    folder.mkdir()
    made = Trial(1, {"threads": 1}, {"bytes": Metric("bytes", 10, "bytes", "lower")})
    parameters, objectives = [Parameter(("threads",), choices=(1, 2))], objectives_of((), made)
    study = Study(folder, parameters, SearchSettings())
    study.begin({}, objectives)
    study.tell(study.take(made.values), made, objectives)
    assert [each.number for each in Study(folder, parameters, SearchSettings()).earlier({})] == [1]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_study_keeps_what_was_measured_in_full_beside_what_the_sampler_knows(tmp_path: Path) -> None:
    made = Trial(1, {"threads": 1}, {"rate": Metric("rate", 10, "", "lower", (9, 11))}, in_full=False)
    parameters, objectives = [Parameter(("threads",), choices=(1, 2))], objectives_of([Goal(metric="rate")], made)
    study = Study(tmp_path, parameters, SearchSettings())
    study.begin({}, objectives)
    study.tell(study.take(made.values), made, objectives)
    full = made.measured_again({"metrics": {"rate": asdict(Metric("rate", 12, "", "lower"))}, "seconds": 2.0})
    study.keep_in_full(full)
    assert Study(tmp_path, parameters, SearchSettings()).earlier({}) == [full]
    assert full.in_full and full.metrics["rate"].value == 12 and full.first_impression.metrics == made.metrics
    assert study._begun.trials[0].values == [10]


def test_trials_that_a_killed_process_has_left_are_given_up_and_their_values_are_known(tmp_path: Path) -> None:
    made = Trial(1, {"threads": 1}, {"bytes": Metric("bytes", 10, "bytes", "lower")})
    parameters, objectives = [Parameter(("threads",), choices=(True, 1))], objectives_of((), made)
    study = Study(tmp_path, parameters, SearchSettings())
    assert study.begin({}, objectives) == []
    study.tell(study.take(made.values), made, objectives)
    study.take({"threads": True})
    study._begun.enqueue_trial({"threads": 1})  # as where a process is killed in the middle of take()
    again = Study(tmp_path, parameters, SearchSettings())
    assert again.begin({}, objectives) == [{"threads": True}]
    assert again.begin({}, objectives) == []
    assert again.take({"threads": True}).values == {"threads": True}
    assert [each.number for each in again.earlier({})] == [1]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_search_that_goes_on_is_proposed_what_it_would_have_been_proposed(tmp_path: Path, sampler: Any) -> None:
    made = Trial(1, {"threads": 3}, {"bytes": Metric("bytes", 10, "bytes", "lower")})
    parameters, objectives = [Parameter(("threads",), low=1, high=10**6)], objectives_of((), made)
    proposed = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        study = Study(tmp_path / name, parameters, SearchSettings(sampler=sampler))
        study.begin({}, objectives)
        study.tell(study.take(made.values), made, objectives)
        if name == "other":
            study = Study(tmp_path / name, parameters, SearchSettings(sampler=sampler))
            study.begin({}, objectives)
        proposed.append([study.propose(number, attempt).values for number in (2, 3) for attempt in (0, 1)])
    assert proposed[0] == proposed[1]
    assert len({each["threads"] for each in proposed[0]}) == 4


def test_a_disk_that_is_full_is_no_trial_and_ends_the_search(tmp_path: Path) -> None:
    result = failed(OutputError("the disk is full", where=tmp_path, cure="free some space"))
    for each in (result, {"several": [{"seconds": 1.0}, result]}):
        with pytest.raises(OutputError, match="the disk is full"):
            refuse_stopped(each)
    refuse_stopped(failed(PlanError("it does not fit")))


def test_a_study_that_cannot_be_written_is_an_error_of_the_disk(tmp_path: Path) -> None:
    made = Trial(1, {"threads": 1}, {"bytes": Metric("bytes", 10, "bytes", "lower")})
    parameters, objectives = [Parameter(("threads",), choices=(1, 2))], objectives_of((), made)
    study = Study(tmp_path, parameters, SearchSettings())
    study.begin({}, objectives)
    with pytest.raises(OutputError, match=r"the study cannot be written: .*disk is full"), study.writing():
        engine = study._begun._storage._backend.engine  # type: ignore[attr-defined]
        event.listen(engine, "checkout", lambda connection, *rest: connection.execute("PRAGMA max_page_count=1"))
        study.keep_in_full(Trial(1, {"threads": "1" * 1_000_000}, made.metrics))
