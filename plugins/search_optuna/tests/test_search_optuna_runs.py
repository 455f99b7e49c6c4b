"""`drupe run` on a workflow with several values: trials, limits, a killed search, what is left behind."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny import make_checkpoint

import drupe as drupe_package
from drupe.api import Request
from drupe_search_optuna.searching import search_in
from drupe_search_optuna.settings import SearchSettings
from drupe_search_optuna.trials import Measuring, carried_out, shared_by_trials


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("search") / "model")


def workflow(folder: Path, checkpoint: Path, **changed: Any) -> Path:
    document = {
        "model": str(checkpoint),
        "options": {"block_size": [32, 64], "symmetric": [True, False], "tokens": 32},
        "search": {"sampler": "grid"},
        "output": str(folder / "out"),
        **changed,
    }
    file = folder / "workflow.json"
    file.write_text(json.dumps(document))
    return file


def drupe(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "drupe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_combination_is_tried_and_the_chosen_one_is_packaged_and_checked(
    checkpoint: Path, tmp_path: Path
) -> None:
    done = drupe("run", workflow(tmp_path, checkpoint))
    assert done.returncode == 0, done.stderr
    study = json.loads((tmp_path / "out.study" / "study.json").read_text())
    tried = [tuple(trial["values"].values()) for trial in study["trials"]]
    assert sorted(tried) == [(32, False), (32, True), (64, False), (64, True)]
    assert all({"bytes", "kl_divergence"} <= set(trial["metrics"]) for trial in study["trials"])
    record = json.loads((tmp_path / "out" / "drupe.json").read_text())
    chosen = study["trials"][study["chosen"] - 1]
    assert record["checked"] is True and record["plan"]["passes"] == chosen["plan"]["passes"]
    assert "trial 4 of 4: block_size 64, symmetric false" in done.stderr
    assert f"{chosen['number']} *" in done.stdout
    assert "prints to standard output" not in done.stderr


def test_a_function_of_the_users_own_may_be_a_goal(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def vocabulary(session, less: int = 0):\n    return session.vocabulary - less\n")
    search = {
        "sampler": "grid",
        "evaluators": {f"{tmp_path / 'mine.py'}:vocabulary": {"less": 3}},
        "goals": ["bytes", {"metric": "vocabulary", "max": 1000}],
    }
    options = {"block_size": [32, 64], "tokens": 32}
    done = drupe("run", workflow(tmp_path, checkpoint, options=options, search=search))
    assert done.returncode == 0, done.stderr
    trials = json.loads((tmp_path / "out.study" / "study.json").read_text())["trials"]
    assert {trial["metrics"]["vocabulary"]["value"] for trial in trials} == {512.0 - 3}


def test_the_plan_of_a_trial_makes_the_package_that_was_measured(checkpoint: Path, tmp_path: Path) -> None:
    assert drupe("run", workflow(tmp_path, checkpoint)).returncode == 0
    study = json.loads((tmp_path / "out.study" / "study.json").read_text())
    number = study["frontier"][0]
    assert drupe("run", tmp_path / "out.study" / f"plan-{number}.json", "-o", tmp_path / "again").returncode == 0
    files = [file for file in (tmp_path / "again").iterdir() if file.name != "drupe.json"]
    trial = study["trials"][number - 1]
    # The record of the run is longer or shorter with its times and its check.
    assert sum(file.stat().st_size for file in files) == pytest.approx(trial["metrics"]["bytes"]["value"], rel=0.1)


def started(file: Path) -> subprocess.Popen[str]:
    """A search of which two trials have ended."""
    command = [sys.executable, "-m", "drupe", "run", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    while not process.stderr.readline().startswith("trial 2"):
        assert process.poll() is None
    return process


def test_a_killed_search_goes_on_with_the_trials_that_it_has(checkpoint: Path, tmp_path: Path) -> None:
    file = workflow(tmp_path, checkpoint)
    process = started(file)
    process.kill()
    process.communicate()
    done = drupe("run", file)
    assert done.returncode == 0, done.stderr
    assert "going on after 2 trials" in done.stderr and "trial 1 " not in done.stderr
    assert len(json.loads((tmp_path / "out.study" / "study.json").read_text())["trials"]) == 4


def test_a_stopped_search_says_after_which_trial_it_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    process = started(workflow(tmp_path, checkpoint))
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130
    ended = r"error: stopped; nothing was published\n  try: run it again: it goes on after [2-4] trials\n$"
    assert re.search(ended, told), told
    assert not (tmp_path / "out").exists()


def test_values_that_cannot_be_made_are_trials_with_a_reason(checkpoint: Path, tmp_path: Path) -> None:
    options = {"quality": ["balanced", "fast"], "bits_per_weight": 6.0, "tokens": 32}
    done = drupe("run", workflow(tmp_path, checkpoint, options=options, target={"precision": ["int4", "fp32"]}))
    assert done.returncode == 0, done.stderr
    study = json.loads((tmp_path / "out.study" / "study.json").read_text())
    assert any(trial["reason"] for trial in study["trials"]) and "failed:" in done.stderr
    assert "precision fp32: no package can be made of it" in done.stderr.partition("trial 1")[0]


def test_limits_that_no_trial_keeps_to_end_the_search_with_the_nearest_one(checkpoint: Path, tmp_path: Path) -> None:
    goals = [{"metric": "bytes", "max": 10}, "kl_divergence"]
    done = drupe("run", workflow(tmp_path, checkpoint, search={"sampler": "grid", "goals": goals}))
    assert done.returncode != 0 and not (tmp_path / "out").exists()
    assert "no trial keeps to the limits; nearest is trial" in done.stderr and "at most 10" in done.stderr


@pytest.mark.parametrize("search", [{"sampler": "tpe"}, {"sampler": "nsga2"}, {"order": "pass-by-pass"}])
def test_samplers_try_each_combination_once_at_most(checkpoint: Path, tmp_path: Path, search: dict[str, Any]) -> None:
    done = drupe("run", workflow(tmp_path, checkpoint, search={**search, "trials": 3}))
    assert done.returncode == 0, done.stderr
    more = drupe("run", workflow(tmp_path, checkpoint, search={**search, "trials": 4}), "--force")
    assert "going on after 3 trials" in more.stderr
    trials = json.loads((tmp_path / "out.study" / "study.json").read_text())["trials"]
    assert [trial["number"] for trial in trials] == [1, 2, 3, 4]
    assert len({json.dumps(trial["values"]) for trial in trials}) == 4


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"options": {"block_size": [32, "large"]}}, "block_size"),
        ({"options": {"blok_size": [32, 64]}}, "did you mean"),
        ({"search": {"sampler": "anneal"}}, "search.sampler"),
        ({"search": {"trails": 3}}, "did you mean trials"),
        ({"options": {"block_size": 32}}, "nothing to search"),
        ({"search": {"sampler": "grid", "order": "pass-by-pass"}}, "has no effect with the sampler 'grid'"),
        ({"search": {"seconds": 9, "order": "pass-by-pass"}}, "only a time is given"),
        ({"options": {"bits_per_weight": {"low": 4.5, "high": 6.0}}}, "give it a step"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_before_the_work(
    checkpoint: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    done = drupe("run", workflow(tmp_path, checkpoint, **changed))
    assert done.returncode not in (0, 70), done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists() and "trial 1" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"options": {"blok_size": [32, 64]}}, "did you mean block_size"),
        ({"serach": {}}, "did you mean search"),
        ({"search": {"goals": ["kl_divergense"]}}, "unknown metric 'kl_divergense'; did you mean kl_divergence"),
        ({"options": {"block_size": [32, 64], "symmetric": "maybe"}}, "symmetric"),
        ({"options": {"block_size": [32, 64], "symmetric": []}}, "symmetric"),
    ],
)
def test_what_the_search_refuses_a_dry_run_refuses_and_no_study_is_left(
    checkpoint: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    file = workflow(tmp_path, checkpoint, **changed)
    for done in (drupe("run", file, "--dry-run"), drupe("run", file)):
        assert done.returncode == 2 and said in done.stderr
    assert not (tmp_path / "out.study").exists()


def test_a_study_of_another_workflow_is_not_gone_on_with(checkpoint: Path, tmp_path: Path) -> None:
    assert drupe("run", workflow(tmp_path, checkpoint)).returncode == 0
    done = drupe("run", workflow(tmp_path, checkpoint, threads=[1, 2]), "--force")
    assert done.returncode != 0 and "the study of another workflow" in done.stderr


def test_a_study_of_another_model_is_not_gone_on_with(checkpoint: Path, tmp_path: Path) -> None:
    model = shutil.copytree(checkpoint, tmp_path / "model")
    options = {"block_size": [32], "tokens": 32}
    file = workflow(tmp_path, model, options=options)
    assert drupe("run", file).returncode == 0
    done = drupe("run", file, "--force", "-m", checkpoint)
    assert done.returncode != 0 and "the study of another workflow" in done.stderr
    shutil.rmtree(model)
    make_checkpoint(model, tie_word_embeddings=True)
    done = drupe("run", file, "--force")
    assert done.returncode != 0 and "the model has changed since the trials" in done.stderr


def test_a_dry_run_prints_what_would_be_searched(checkpoint: Path, tmp_path: Path) -> None:
    done = drupe("run", workflow(tmp_path, checkpoint), "--dry-run")
    assert done.stdout.splitlines() == [
        "searched  options.block_size: 32, 64",
        "searched  options.symmetric: true, false",
        "4 combinations; 4 trials with the sampler 'grid'",
    ]
    assert not (tmp_path / "out.study").exists()


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 4),
        ({"trials": 3}, 3),
        ({"sampler": "grid"}, 4),
        ({"sampler": "grid", "trials": 3}, 3),
        ({"seconds": 60}, None),
    ],
)
def test_a_search_is_said_to_end_after_all_combinations(settings: dict[str, Any], most: int | None) -> None:
    document = {"options": {"block_size": [32, 64], "symmetric": [True, False]}, "search": settings}
    search = search_in(document)
    assert search is not None and search.most_trials == most


def test_packages_that_differ_in_threads_only_are_compared_with_the_source_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    evaluate = drupe_package.evaluate

    def noted(package: Path, *rest: Any, evaluator: str, **settings: Any) -> Any:
        asked.append(evaluator)
        return evaluate(package, *rest, evaluator=evaluator, **settings)

    monkeypatch.setattr(drupe_package, "evaluate", noted)

    def request_of(values: Mapping[str, Any]) -> Request:
        options = {"tokens": 32, "block_size": values["block_size"]}
        return Request(str(checkpoint), provider="cpu", options=options, threads=values["threads"])

    measuring = Measuring(request_of, SearchSettings(evaluators={"footprint": {"repeats": 1}}), tmp_path)
    with shared_by_trials(tmp_path):
        trials = [
            carried_out(measuring.task({"threads": threads, "block_size": size}))
            for threads, size in ((1, 32), (2, 32), (2, 64))
        ]
    assert asked == ["quality", "footprint", "footprint", "quality", "footprint"]
    first, second, third = (trial["metrics"]["kl_divergence"]["value"] for trial in trials)
    assert first == second != third
