"""What a folder keeps of the trials of a search."""

from __future__ import annotations

from pathlib import Path

from drupe.api import Metric
from drupe_search_optuna.goals import objectives_of
from drupe_search_optuna.settings import SearchSettings
from drupe_search_optuna.spaces import Parameter
from drupe_search_optuna.study import Study
from drupe_search_optuna.trials import Trial


def test_the_folder_of_a_study_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a?b {c} 100%25 #d"
    folder.mkdir()
    made = Trial(1, {"threads": 1}, {"bytes": Metric("bytes", 10, "bytes", "lower")})
    parameters, objectives = [Parameter(("threads",), choices=(1, 2))], objectives_of((), made)
    study = Study(folder, parameters, SearchSettings())
    study.begin({}, objectives)
    study.take(made.values)
    study.tell(made, objectives)
    assert [each.number for each in Study(folder, parameters, SearchSettings()).earlier({})] == [1]
    assert list(tmp_path.iterdir()) == [folder]
