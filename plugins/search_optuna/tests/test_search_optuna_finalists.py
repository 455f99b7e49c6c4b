"""Which trials are worth a full measurement, and that the choice is made of nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import make_checkpoint

from drupe.api import Metric, Request, plan_of, registry
from drupe_eval_speed.measuring import measure
from drupe_search_optuna.finalists import candidates
from drupe_search_optuna.goals import objectives_of
from drupe_search_optuna.settings import Goal
from drupe_search_optuna.trials import Trial, carried_out


def trial(number: int, size: float, latency: tuple[float, float, float]) -> Trial:
    low, value, high = latency
    metrics = {
        "bytes": Metric("bytes", size, "bytes", "lower"),
        "latency": Metric("latency", value, "ms", "lower", (low, high)),
    }
    return Trial(number, {}, metrics, ("latency",), in_full=False)


TRIALS = [
    trial(1, 100, (9, 10, 11)),
    trial(2, 100, (10.5, 11, 12)),  # its interval reaches into that of 1
    trial(3, 100, (30, 31, 32)),  # surely beaten
    trial(4, 50, (28, 30, 31)),
    trial(5, 75, (14, 15, 16)),
]


def numbers(*goals: Goal) -> list[int]:
    objectives = objectives_of(goals, TRIALS[0])
    return sorted(each.number for each in candidates(TRIALS, objectives))


def test_what_is_not_surely_beaten_may_be_on_the_frontier() -> None:
    assert numbers() == [1, 2, 4, 5]


def test_the_likeliest_choice_comes_first() -> None:
    assert candidates(TRIALS, objectives_of((), TRIALS[0]))[0].number == 5


def test_what_is_surely_beyond_a_limit_is_left_out_and_what_may_keep_to_it_is_not() -> None:
    assert numbers(Goal(metric="bytes"), Goal(metric="latency", max=28.5)) == [1, 2, 4, 5]
    assert numbers(Goal(metric="bytes"), Goal(metric="latency", max=20)) == [1, 2, 5]
    assert numbers(Goal(metric="bytes"), Goal(metric="latency", min=40)) == []


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("finalists") / "model")


def searched(checkpoint: Path, folder: Path, **search: Any) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    """The study of a search over four packages."""
    small = {"footprint": {"prompt_lengths": 8, "new_tokens": 4}}
    document = {
        "model": str(checkpoint),
        "options": {"block_size": [32, 64], "symmetric": [True, False], "tokens": 32},
        "search": {"sampler": "grid", "evaluators": small, **search},
        "output": str(folder / "out"),
    }
    file = folder / "workflow.json"
    file.write_text(json.dumps(document))
    command = [sys.executable, "-m", "drupe", "run", str(file), "--force"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (folder / "out.study" / "shared").exists()
    return json.loads((folder / "out.study" / "study.json").read_text()), done


def test_only_finalists_are_measured_in_full_and_one_of_them_is_chosen(checkpoint: Path, tmp_path: Path) -> None:
    goals = ["bytes", "kl_divergence"]  # equal in all runs
    study, done = searched(checkpoint, tmp_path, finalists=1, goals=goals)
    in_full = [each["number"] for each in study["trials"] if each["in_full"]]
    assert in_full == study["frontier"] == [study["chosen"]]
    chosen = study["trials"][study["chosen"] - 1]
    assert chosen["metrics"]["load_time"] != chosen["brief"]["load_time"]
    assert chosen["metrics"]["kl_divergence"] == chosen["brief"]["kl_divergence"]
    assert study["left_brief"] and "measured briefly only" in done.stdout
    for number in (*study["frontier"], *study["left_brief"]):
        assert (tmp_path / "out.study" / f"plan-{number}.json").is_file()
    more, done = searched(checkpoint, tmp_path, finalists=4, goals=goals)  # it goes on with the trials that it has
    assert "going on after 4 trials" in done.stderr and not more["left_brief"]
    assert set(in_full) < {each["number"] for each in more["trials"] if each["in_full"]}
    again = more["trials"][study["chosen"] - 1]  # beside the new ones: it is compared with them
    assert again["brief"] == chosen["brief"]
    assert again["metrics"]["load_time"] != chosen["metrics"]["load_time"]


@pytest.fixture
def together(checkpoint: Path, tmp_path: Path) -> dict[str, Any]:
    """The task of two finalists."""
    plans = []
    for size in (32, 64):
        request = Request(str(checkpoint), "cpu", options={"block_size": size, "tokens": 32})
        plan, source = plan_of(request, registry())
        plans.append(registry().publisher().fixed(plan, source).model_dump(mode="json"))
    evaluators = {"footprint": {"prompt_lengths": 8, "new_tokens": 4, "repeats": 2}}
    return {"plan": plans[0], "beside": plans[1:], "evaluators": evaluators, "folder": str(tmp_path),
            "again": ["footprint"]}  # fmt: skip


def test_finalists_are_measured_in_turn(together: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def recording(subjects: Any, *arguments: Any, **named: Any) -> Any:
        measured.append(len(subjects))
        return measure(subjects, *arguments, **named)

    monkeypatch.setattr("drupe_eval_speed.evaluators.measure", recording)
    result = carried_out(together)
    assert measured == [2] and "apart" not in result
    first, second = result["several"]
    assert set(first["metrics"]) == set(second["metrics"]) == {"size_on_disk", "peak_memory", "load_time"}
    assert first["metrics"]["size_on_disk"]["value"] > second["metrics"]["size_on_disk"]["value"]


def test_finalists_that_cannot_be_measured_in_turn_are_measured_one_after_the_other(
    together: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drupe_files.memory.HEADROOM", 1e12)
    result = carried_out(together)
    assert "MiB are free" in result["apart"]
    assert [each["metrics"]["load_time"]["value"] > 0 for each in result["several"]] == [True, True]


def test_the_first_trial_is_measured_in_full_where_limits_refer_to_it(checkpoint: Path, tmp_path: Path) -> None:
    goals = [{"metric": "kl_divergence"}, {"metric": "load_time", "max_worse": "10000%", "optimize": False}]
    study, _ = searched(checkpoint, tmp_path, finalists=1, goals=goals)
    assert study["trials"][0]["in_full"] and study["objectives"][1]["high"] == pytest.approx(
        101 * study["trials"][0]["metrics"]["load_time"]["value"]
    )


def test_with_full_measuring_each_trial_is_measured_in_full_and_takes_over_nothing(
    checkpoint: Path, tmp_path: Path
) -> None:
    study, done = searched(checkpoint, tmp_path, measuring="full")
    assert all(each["in_full"] and not each["brief"] for each in study["trials"])
    assert "briefly" not in done.stdout + done.stderr and not study["left_brief"]
