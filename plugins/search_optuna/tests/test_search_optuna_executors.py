"""Trials in worker processes: workers that die, drivers that are killed, and the same results as in one process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from executor_tasks import kill_first
from searches import read_until, results, started
from tiny import make_checkpoint

from drupe_search_optuna.local_executor import LocalConfig, LocalExecutor


@pytest.mark.skipif(os.name == "nt", reason="kills a process by a signal")
def test_the_task_of_a_killed_worker_is_done_again_and_others_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    with LocalExecutor(LocalConfig(workers=2), said.append) as executor:
        executor.submit(1, "executor_tasks:once_killed", {"log": str(tmp_path / "log"), "given": "again"})
        executor.submit(2, "executor_tasks:gives", {"given": "other"})
        assert executor.ended() == (2, {"given": "other", "folder": False})
        kill_first(tmp_path / "log")
        assert executor.ended() == (1, {"given": "again"})
    assert len(said) == 1 and "the worker of trial 1 died: it was ended by SIGKILL" in said[0]


def test_a_task_whose_workers_die_too_often_and_one_that_fails_end_with_the_reason() -> None:
    said: list[str] = []
    with LocalExecutor(LocalConfig(workers=1, retries=1), said.append) as executor:
        executor.submit(1, "executor_tasks:ends_its_process", {})
        assert executor.ended() == (1, {"reason": "its worker died 2 times: it ended with status 3"})
        executor.submit(2, "executor_tasks:fails", {})
        assert executor.ended() == (2, {"reason": "ValueError: not this one"})
    assert len(said) == 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("search") / "model")


def test_a_killed_search_in_workers_goes_on_and_finds_what_a_search_in_one_process_finds(
    checkpoint: Path, tmp_path: Path
) -> None:
    alone, several = tmp_path / "alone", tmp_path / "several"
    one = started(alone, checkpoint)
    killed = started(several, checkpoint, "--executor", "local", "--workers", "2")
    read_until(killed, "trial 2")
    killed.kill()
    killed.communicate()
    _, told = one.communicate()
    assert one.returncode == 0, told
    again = started(several, checkpoint, "--executor", "local", "--workers", "2")
    _, told = again.communicate()
    assert again.returncode == 0, told
    assert "going on after 2 trials" in told or "going on after 3 trials" in told
    assert results(several) == results(alone)
    assert not list((several / "out.study").glob("package-*"))


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_a_stopped_search_ends_its_workers_and_what_they_have_begun(checkpoint: Path, tmp_path: Path) -> None:
    search = started(tmp_path, checkpoint, "--executor", "local", "--workers", "2")
    read_until(search, "trial 1")
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
