"""What the machines of a search share: the model, and what costly passes have made; and what a trial needs of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from sites import Site
from tiny import make_checkpoint

import drupe
from drupe.api import (
    DrupeError,
    InProcess,
    Job,
    Plan,
    PlannedPass,
    PlannedSource,
    PlannedTarget,
    Registry,
    UsageError,
    configure,
    registry,
    resolve,
)
from drupe_executor_ray.settings import RayConfig, room
from drupe_executor_ray.storage import SharedCache, Storage, placed, put_model_of
from drupe_files import FolderCache


@pytest.fixture
def url() -> str:
    """A storage that is no file system of this machine."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return "memory://shared"


def test_what_a_costly_pass_has_made_on_one_machine_another_one_takes_from_the_storage(
    acme: Site, found: Registry, source: Path, tmp_path: Path, url: str
) -> None:
    target = PlannedTarget(provider="paper")
    plan = Plan(source=PlannedSource(reference=str(source)), target=target, passes=(PlannedPass(name="shout"),))
    made = []
    for machine in ("one", "another"):
        job = Job(plan, resolve(str(source), {}, found), machine, tmp_path)
        with FolderCache(tmp_path / machine) as own:
            made.append(InProcess(SharedCache(own, Storage(url))).run(job).payload)
    assert made == ["HELLO", "HELLO"] and acme.log.read_text() == "shout ran\n"


def test_a_model_is_copied_once_and_has_its_fingerprint_where_it_is_copied_to(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRUPE_CACHE", str(tmp_path / "cache"))
    checkpoint = make_checkpoint(tmp_path / "model")
    source = registry().publisher()
    plan = source.fixed(drupe.plan(checkpoint), source.source_of(drupe.plan(checkpoint)))
    task = {"plan": plan.model_dump(mode="json")}
    put_model_of(task, Storage(url))
    put_model_of(task, Storage(url))
    with placed(task, Storage(url)) as there:
        assert Path(there["plan"]["source"]["reference"]).is_relative_to(tmp_path / "cache")
        assert source.source_of(type(plan).model_validate(there["plan"])).kind == "hf"
    assert task["plan"]["source"]["reference"] == str(checkpoint)


def test_a_model_that_is_half_copied_is_none(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRUPE_CACHE", str(tmp_path / "cache"))
    storage = Storage(url)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    storage.put_model(tmp_path / "model", "a")
    for name in [name for name in MemoryFileSystem.store if name.endswith("files.json")]:
        del MemoryFileSystem.store[name]
    with storage.model("a") as copy:
        assert copy is None


def test_a_storage_that_cannot_be_used_is_named() -> None:
    with pytest.raises(UsageError, match="the storage cannot be used"):
        Storage("nosuchsystem://bucket")
    with pytest.raises(DrupeError, match="the storage cannot be read: FileNotFoundError"):
        Storage("memory://empty").get_entry("a", Path())


@pytest.mark.parametrize(
    ("config", "machine", "needed"),
    [
        ({}, None, {"CPU": 4}),
        ({"cpus": 2, "gpus": 0.5, "memory": "2GB"}, None, {"CPU": 2, "GPU": 0.5, "memory": 2e9}),
        ({"workers": 2}, 8, {"CPU": 4}),
        ({"workers": 4}, 2, {"CPU": 0.5}),
        ({"workers": 3, "resources": {"avx512": 1}}, None, {"CPU": 4, "avx512": 1}),
    ],
)
def test_a_trial_needs_the_processors_that_its_package_has_threads_unless_it_is_told_otherwise(
    config: dict[str, object], machine: float | None, needed: dict[str, float]
) -> None:
    assert RayConfig(**config).needs({"threads": 4}, machine) == needed  # type: ignore[arg-type]


def test_there_is_room_for_what_each_machine_can_take() -> None:
    assert room([{"CPU": 8, "GPU": 1}, {"CPU": 3}, {"CPU": 7, "GPU": 4}], {"CPU": 2, "GPU": 1}) == 1 + 0 + 3
    assert room([{"CPU": 0.3}], {"CPU": 0.1}) == 3


def test_a_memory_that_is_no_size_is_refused() -> None:
    with pytest.raises(UsageError, match="'much' is no size"):
        configure("executor 'ray'", RayConfig, {"memory": "much"})
