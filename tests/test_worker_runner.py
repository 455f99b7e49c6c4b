"""Carrying out a plan in a worker process: only serialisable values pass over, and the results are the same."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sites import Site
from tiny import make_checkpoint
from worker_runner import Worker

import drupe
from drupe.api import (
    Cancelled,
    Event,
    ModelError,
    Plan,
    PlanError,
    PluginCrash,
    Progress,
    listen,
    registry,
)


class Heard:
    """Records all events of runs in this process."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def drupe_observe(self, event: Event) -> None:
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        return [f"{event.name} {event.subject}" for event in self.events if event.name.startswith("pass")]


def run(plan: Plan, output: Path, **more: Any) -> None:
    registry().publisher().carry_out(plan, registry().publisher().source_of(plan), output, **more)


def package(folder: Path) -> dict[str, bytes]:
    """The files of a package except its record, which contains times."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "drupe.json"}


# Text models of acme, which are stored in a folder to pass them to the worker


@pytest.fixture
def text(tmp_path: Path) -> Iterator[Path]:
    """A source of acme, the kernel's example plugin. No other plugin is installed."""
    site = Site(tmp_path / "site")
    site.folder.mkdir()
    site.add_acme()
    site.ship("acme")
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.txt").write_text("hello")
    with site.installed_here():
        yield source


@pytest.mark.parametrize("by_reference", [False, True])
def test_a_worker_makes_the_same_bytes(text, tmp_path, by_reference):
    plan = drupe.plan(text, precision="loud")
    worker = Worker(by_reference)
    run(plan, tmp_path / "there", runner=worker)
    run(plan, tmp_path / "here")
    assert worker.pid not in (None, os.getpid())
    assert package(tmp_path / "there") == package(tmp_path / "here") == {"model.txt": b"HELLO -- anonymous"}


def test_a_worker_gets_the_stored_model_and_not_its_original_folder(text, tmp_path):
    plan = drupe.plan(text, precision="plain")
    source = registry().publisher().source_of(plan)
    changed = source.but(payload="what is only in memory")
    registry().publisher().carry_out(plan, changed, tmp_path / "out", runner=Worker())
    assert (tmp_path / "out" / "model.txt").read_text() == "what is only in memory -- anonymous"


def test_events_of_a_worker_equal_those_of_this_process_under_the_runs_id(text, tmp_path, monkeypatch):
    plan = drupe.plan(text, precision="loud")
    told = []
    for name, runner in (("here", None), ("there", Worker())):
        heard = Heard()
        registry().listeners[:] = [heard]
        monkeypatch.setenv("DRUPE_CACHE", str(tmp_path / f"cache-{name}"))
        run(plan, tmp_path / f"out-{name}", runner=runner)
        assert len({event.run for event in heard.events}) == 1
        assert all(event.seconds is not None for event in heard.events if event.name == "pass-finished")
        told.append(heard.names)
    assert told[0] == told[1] == [
        "pass-started shout", "pass-finished shout", "pass-started sign", "pass-finished sign",
    ]  # fmt: skip


def test_progress_of_a_worker_is_shown(text, tmp_path):
    started = []

    class Shown(Progress):
        def start(self, label: str, total: int, unit: str = "bytes") -> None:
            started.append(label)

    run(drupe.plan(text, precision="loud"), tmp_path / "out", runner=Worker(), progress=Shown())
    # Writing the source, writing the cache, writing the result, and writing the package.
    assert started == ["writing"] * 4


def test_an_error_of_a_worker_keeps_its_class_place_and_cure(text, tmp_path):
    (text / "model.txt").write_text("nameless")
    plan = drupe.plan(text, precision="plain")
    with pytest.raises(ModelError, match="nobody signs that"):
        run(plan, tmp_path / "out", runner=Worker())
    (text / "model.txt").write_text("fail")
    with pytest.raises(PluginCrash, match=r"the pass 'shout' of acme 1\.0 raised ZeroDivisionError") as raised:
        run(drupe.plan(text, precision="loud"), tmp_path / "out", runner=Worker())
    assert "acme.py:" in raised.value.where
    assert raised.value.cure == "report it to the makers of acme, or pip uninstall acme"
    assert not (tmp_path / "out").exists()


def test_a_worker_refuses_a_source_that_is_not_what_the_plan_was_made_for(text, tmp_path):
    run(drupe.plan(text, precision="plain"), tmp_path / "first")
    plan = Plan.model_validate(json.loads((tmp_path / "first" / "drupe.json").read_text())["plan"])
    source = registry().publisher().source_of(plan)
    (text / "model.txt").write_text("another")
    with pytest.raises(PlanError, match="has changed since"):
        registry().publisher().carry_out(plan, source, tmp_path / "out", runner=Worker(by_reference=True))
    assert not (tmp_path / "out").exists()


def test_cancelling_ends_the_worker_and_publishes_nothing(text, tmp_path):
    (text / "model.txt").write_text("wait")  # runs until it is stopped

    class Stopping(Worker):
        def run(self, job):
            class Stop:
                def drupe_observe(self, event: Event) -> None:
                    if event.name == "pass-started":
                        job.cancelled.set()

            listen(Stop())
            return super().run(job)

    worker = Stopping()
    with pytest.raises(Cancelled, match="stopped; nothing was published"):
        run(drupe.plan(text, precision="loud"), tmp_path / "out", runner=worker)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_a_worker_that_dies_is_an_error_and_publishes_nothing(text, tmp_path):
    code = (tmp_path / "site" / "acme.py").read_text()
    dying = code.replace('        if "nameless"', '        os._exit(9)\n        if "nameless"')
    (tmp_path / "site" / "acme.py").write_text(dying)
    with pytest.raises(drupe.api.DrupeError, match="the worker ended with status 9"):
        run(drupe.plan(text, precision="plain"), tmp_path / "out", runner=Worker())
    assert not (tmp_path / "out").exists()


# A real model: the worker resolves the checkpoint itself, and returns a graph with lazy weights


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("worker") / "checkpoint")


def test_a_worker_makes_the_same_bytes_for_a_real_model(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("DRUPE_CACHE", str(tmp_path / "cache"))
    plan = drupe.plan(checkpoint, quality="fast")
    heard = Heard()
    listen(heard)
    run(plan, tmp_path / "there", runner=Worker(by_reference=True))
    registry().listeners.remove(heard)
    run(plan, tmp_path / "here")
    assert package(tmp_path / "there") == package(tmp_path / "here")
    record = json.loads((tmp_path / "there" / "drupe.json").read_text())
    assert record["checked"] is True
    assert [name for name in heard.names if "started" in name] == [f"pass-started {each.name}" for each in plan.passes]


def test_an_error_with_a_real_model_is_the_same_from_a_worker(checkpoint, tmp_path):
    broken = tmp_path / "checkpoint"
    broken.mkdir()
    for path in checkpoint.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    plan = drupe.plan(broken, quality="fast")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    errors = []
    for runner in (None, Worker(by_reference=True)):
        with pytest.raises(ModelError) as raised:
            run(plan, tmp_path / "out", runner=runner)
        errors.append(raised.value.document())
    assert errors[0] == errors[1] and errors[0]["where"]
    assert not (tmp_path / "out").exists()
