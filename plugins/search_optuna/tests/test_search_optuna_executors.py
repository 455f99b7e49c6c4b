"""Trials in worker processes: workers that die, drivers that are killed, and the same results as in one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import make_checkpoint

from drupe_search_optuna.local_executor import LocalConfig, LocalExecutor

TASKS = '''
import os, time
from pathlib import Path

def once_killed(task):
    """Wait to be killed; when it is begun again, give what it is given."""
    log = Path(task["log"])
    with log.open("a") as file:
        print(os.getpid(), file=file)
    while len(log.read_text().splitlines()) == 1:
        time.sleep(0.05)
    return {"given": task["given"]}

def ends_its_process(task):
    os._exit(3)

def fails(task):
    raise ValueError("not this one")

def gives(task):
    return {"given": task["given"]}
'''


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "given_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    return "given_tasks"


def kill_first(log: Path) -> None:
    """Kill the process that writes its number to a file."""
    while not log.exists() or not log.read_text().endswith("\n"):
        time.sleep(0.02)
    os.kill(int(log.read_text()), signal.SIGKILL)


@pytest.mark.skipif(os.name == "nt", reason="kills a process by a signal")
def test_the_task_of_a_killed_worker_is_done_again_and_others_go_on(tmp_path: Path, tasks: str) -> None:
    said: list[str] = []
    with LocalExecutor(LocalConfig(workers=2), said.append) as executor:
        executor.submit(1, f"{tasks}:once_killed", {"log": str(tmp_path / "log"), "given": "again"})
        executor.submit(2, f"{tasks}:gives", {"given": "other"})
        assert executor.ended() == (2, {"given": "other"})
        kill_first(tmp_path / "log")
        assert executor.ended() == (1, {"given": "again"})
    assert len(said) == 1 and "the worker of trial 1 died: it was ended by SIGKILL" in said[0]


def test_a_task_whose_workers_die_too_often_and_one_that_fails_end_with_the_reason(tasks: str) -> None:
    said: list[str] = []
    with LocalExecutor(LocalConfig(workers=1, retries=1), said.append) as executor:
        executor.submit(1, f"{tasks}:ends_its_process", {})
        assert executor.ended() == (1, {"reason": "its worker died 2 times: it ended with status 3"})
        executor.submit(2, f"{tasks}:fails", {})
        assert executor.ended() == (2, {"reason": "ValueError: not this one"})
    assert len(said) == 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("search") / "model")


def started(folder: Path, checkpoint: Path, *arguments: str, **changed: Any) -> subprocess.Popen[str]:
    """A search with a grid of four trials."""
    options = {"block_size": [32, 64], "symmetric": [True, False], "tokens": 32}
    document = {"model": str(checkpoint), "options": options, "threads": 1, "search": {"sampler": "grid"}, **changed}
    document = {key: value for key, value in document.items() if value is not None}
    (folder / "workflow.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "drupe", "run", "workflow.json", "-o", "out", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def study_of(folder: Path) -> dict[str, Any]:
    study: dict[str, Any] = json.loads((folder / "out.study" / "study.json").read_text())
    return study


def results(study: dict[str, Any]) -> dict[str, Any]:
    """All of a study that does not depend on time."""
    trials = [
        (each["number"], each["values"], each["metrics"]["kl_divergence"]["value"], each["plan"])
        for each in study["trials"]
    ]
    return {"trials": trials, "chosen": study["chosen"], "frontier": study["frontier"]}


def test_a_killed_search_in_workers_goes_on_and_finds_what_a_search_in_one_process_finds(
    checkpoint: Path, tmp_path: Path
) -> None:
    alone, several = tmp_path / "alone", tmp_path / "several"
    for folder in (alone, several):
        folder.mkdir()
    one = started(alone, checkpoint)
    killed = started(several, checkpoint, "--executor", "local", "--workers", "2")
    assert killed.stderr is not None
    while not killed.stderr.readline().startswith("trial 2"):
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    _, told = one.communicate()
    assert one.returncode == 0, told
    again = started(several, checkpoint, "--executor", "local", "--workers", "2")
    _, told = again.communicate()
    assert again.returncode == 0, told
    assert "going on after 2 trials" in told or "going on after 3 trials" in told
    assert results(study_of(several)) == results(study_of(alone))
    assert not list((several / "out.study").glob("package-*"))


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_a_stopped_search_ends_its_workers_and_what_they_have_begun(checkpoint: Path, tmp_path: Path) -> None:
    search = started(tmp_path, checkpoint, "--executor", "local", "--workers", "2")
    assert search.stderr is not None
    while not search.stderr.readline().startswith("trial 1"):
        assert search.poll() is None
    search.send_signal(signal.SIGINT)
    _, told = search.communicate()  # which ends when every process that has this output has ended
    assert search.returncode == 130 and "it goes on after" in told and "Traceback" not in told
    assert not list((tmp_path / "out.study").glob("package-*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--executor", "locl"), "did you mean local"),
        (("--executor", "local", "--address", "auto"), "unknown key 'address' of the executor 'local'"),
        (("--workers", "2"), "the executor has no name"),
    ],
)
def test_an_executor_that_does_not_exist_or_has_no_such_setting_is_refused(
    checkpoint: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    _, told = started(tmp_path, checkpoint, "--dry-run", *arguments).communicate()
    assert said in told and not (tmp_path / "out.study").exists()


def test_an_executor_where_nothing_is_searched_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    run = started(tmp_path, checkpoint, "--executor", "local", options={"block_size": 32}, search=None)
    _, told = run.communicate()
    assert run.returncode == 2 and "--executor has no effect" in told
