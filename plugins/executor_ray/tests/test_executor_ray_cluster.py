"""Trials on a Ray cluster: workers that are killed, a search with a storage, and Ray that is started and ended here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny import make_checkpoint

from drupe.api import UsageError
from drupe_executor_ray.executor import RayExecutor
from drupe_executor_ray.settings import RayConfig

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for Ray's processes in /proc")
OWN_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
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
    os.kill(os.getpid(), 9)

def fails(task):
    raise ValueError("not this one")

def gives(task):
    return {"given": task["given"], "folder": "folder" in task}
'''
PLAN = {"threads": 1, "source": {"fingerprint": "", "reference": ""}}


@dataclass(frozen=True)
class Cluster:
    address: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one machine with two processors, which can import the tasks above."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "ray_tasks.py").write_text(TASKS)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, **OWN_RAY, "PYTHONPATH": path, "DRUPE_CACHE": str(folder / "cache-of-workers")}
    short = tempfile.mkdtemp(prefix="drupe-ray-", dir="/tmp")  # the paths of sockets are limited
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0", "--num-cpus=2",
        "--include-dashboard=false", f"--object-store-memory={80 * 2**20}", "--disable-usage-stats",
        f"--temp-dir={short}",
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            while not (found := re.search(r"ray start --address='(.+)'", (folder / "log").read_text())):
                assert head.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            yield Cluster(found[1], environment)
        finally:
            head.send_signal(signal.SIGTERM)
            head.wait(60)
            shutil.rmtree(short, ignore_errors=True)


@pytest.fixture
def of_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the cluster, for this process."""
    for name, value in OWN_RAY.items():
        monkeypatch.setenv(name, value)
    return cluster.address


def kill_first(log: Path) -> None:
    """Kill the process that writes its number to a file."""
    while not log.exists() or not log.read_text().endswith("\n"):
        time.sleep(0.02)
    os.kill(int(log.read_text()), signal.SIGKILL)


def test_tasks_of_workers_that_die_are_done_again_and_end_with_the_reason_when_they_die_too_often(
    of_cluster: str, tmp_path: Path
) -> None:
    said: list[str] = []
    handler = signal.getsignal(signal.SIGTERM)
    config = RayConfig(address=of_cluster, retries=1)
    with RayExecutor(config, said.append) as executor:
        log = tmp_path / "log"
        executor.submit(1, "ray_tasks:once_killed", {"plan": PLAN, "log": str(log), "given": "again", "folder": "/x"})
        assert executor.capacity == 2
        executor.submit(2, "ray_tasks:gives", {"plan": PLAN, "given": "other", "folder": "/x"})
        assert executor.ended() == (2, {"given": "other", "folder": False})
        kill_first(log)
        assert executor.ended() == (1, {"given": "again"})
        assert said == ["note: the worker of trial 1 died: its process ended; the trial is begun again"]
        executor.submit(3, "ray_tasks:ends_its_process", {"plan": PLAN})
        assert executor.ended() == (3, {"reason": "its worker died 2 times: its process ended"})
        executor.submit(4, "ray_tasks:fails", {"plan": PLAN})
        assert executor.ended() == (4, {"reason": "ValueError: not this one"})
        with pytest.raises(UsageError, match="no machine of the cluster has what a trial needs: CPU 64"):
            executor.submit(5, "ray_tasks:gives", {"plan": {**PLAN, "threads": 64}})
    assert signal.getsignal(signal.SIGTERM) is handler


def started(
    folder: Path, checkpoint: Path, environment: dict[str, str], executor: dict[str, Any]
) -> subprocess.Popen[str]:
    """A search with a grid of four trials."""
    folder.mkdir()
    document = {
        "model": str(checkpoint),
        "options": {"block_size": [32, 64], "symmetric": [True, False], "tokens": 32},
        "threads": 1,
        "search": {"sampler": "grid", "executor": executor},
    }
    (folder / "workflow.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "drupe", "run", "workflow.json", "-o", "out"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read_until(process: subprocess.Popen[str], beginning: str) -> None:
    """Wait until a search has written a line that begins so."""
    assert process.stderr is not None
    told = ""
    while not (line := process.stderr.readline()).startswith(beginning):
        told += line
        assert process.poll() is None, told


def results(folder: Path) -> dict[str, Any]:
    """All of a study that does not depend on time."""
    study = json.loads((folder / "out.study" / "study.json").read_text())
    trials = [
        (each["number"], each["values"], each["metrics"]["kl_divergence"]["value"], each["plan"])
        for each in study["trials"]
    ]
    return {"trials": trials, "chosen": study["chosen"], "frontier": study["frontier"]}


def processes_with(variable: str, value: str, title: str = "") -> list[int]:
    """Living processes with a variable of the environment, and with a title that begins so."""
    found, wanted = [], f"{variable}={value}".encode()
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            has_it = wanted in (each / "environ").read_bytes().split(b"\0")
            if has_it and (each / "cmdline").read_bytes().startswith(title.encode()):
                found.append(int(each.name))
    return found


def test_a_search_on_a_cluster_whose_worker_is_killed_finds_what_a_search_in_one_process_finds(
    cluster: Cluster, tmp_path: Path
) -> None:
    checkpoint, storage = make_checkpoint(tmp_path / "model"), tmp_path / "storage"
    environment = {**cluster.environment, "DRUPE_CACHE": str(tmp_path / "cache-of-driver")}
    executor = {"name": "ray", "address": cluster.address, "storage": storage.as_uri()}
    search = started(tmp_path / "several", checkpoint, environment, executor)
    read_until(search, "trial 1 of 4")
    while not (workers := processes_with("DRUPE_CACHE", cluster.environment["DRUPE_CACHE"], "ray::drupe trial")):
        time.sleep(0.01)
    os.kill(workers[0], signal.SIGKILL)
    _, told = search.communicate()
    assert search.returncode == 0, told
    assert "died: its process ended; the trial is begun again" in told
    alone = started(tmp_path / "alone", checkpoint, environment, {})
    _, told = alone.communicate()
    assert alone.returncode == 0, told
    assert results(tmp_path / "several") == results(tmp_path / "alone")
    for folder in (storage, Path(cluster.environment["DRUPE_CACHE"])):
        assert len(list(folder.glob("models/*"))) == 1


def test_a_stopped_search_leaves_nothing_of_the_ray_that_it_has_started(tmp_path: Path) -> None:
    checkpoint, home = make_checkpoint(tmp_path / "model"), tmp_path / "home"
    home.mkdir()
    with tempfile.TemporaryDirectory(prefix="drupe-", dir="/tmp") as temporary:
        environment = {**os.environ, "HOME": str(home), "TMPDIR": temporary, "DRUPE_CACHE": str(tmp_path / "cache")}
        search = started(tmp_path / "run", checkpoint, environment, {"name": "ray"})
        read_until(search, "trial 1 of 4")
        assert processes_with("DRUPE_CACHE", environment["DRUPE_CACHE"], "ray::")
        search.send_signal(signal.SIGINT)
        _, told = search.communicate()
        assert search.returncode == 130 and "it goes on after" in told
        assert not list(Path(temporary).glob("drupe-ray-*"))
    assert not list(home.iterdir())
    while processes_with("DRUPE_CACHE", environment["DRUPE_CACHE"]):
        time.sleep(0.05)  # what was told to end needs a moment


def test_an_address_without_a_cluster_is_refused() -> None:
    config = RayConfig(address="127.0.0.1:1")
    with pytest.raises(UsageError, match="there is no Ray cluster to connect to"), RayExecutor(config, print):
        pass
