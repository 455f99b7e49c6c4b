"""Trials on a Ray cluster: workers that are killed, a search with a storage, and Ray that is started and ended here."""

from __future__ import annotations

import contextlib
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

import executor_tasks
import pytest
from executor_tasks import kill_first
from searches import read_until, results, started
from tiny import make_checkpoint

from drupe.api import UsageError
from drupe_executor_ray.executor import RayExecutor
from drupe_executor_ray.settings import RayConfig

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for Ray's processes in /proc")
OWN_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
PLAN = {"threads": 1, "source": {"fingerprint": "", "reference": ""}}


@dataclass(frozen=True)
class Cluster:
    address: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one machine with two processors, which can import executor_tasks."""
    folder = tmp_path_factory.mktemp("cluster")
    path = os.pathsep.join([str(Path(executor_tasks.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, **OWN_RAY, "PYTHONPATH": path, "DRUPE_CACHE": str(folder / "cache-of-workers")}
    short = tempfile.mkdtemp(prefix="drupe-cluster-", dir="/tmp")  # the paths of sockets are limited
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


def test_tasks_of_workers_that_die_are_done_again_and_end_with_the_reason_when_they_die_too_often(
    of_cluster: str, tmp_path: Path
) -> None:
    said: list[str] = []
    handler = signal.getsignal(signal.SIGTERM)
    config = RayConfig(address=of_cluster, retries=1)
    with RayExecutor(config, said.append) as executor:
        log = tmp_path / "log"
        executor.submit(
            1, "executor_tasks:once_killed", {"plan": PLAN, "log": str(log), "given": "again", "folder": "/x"}
        )
        assert executor.capacity == 2
        executor.submit(2, "executor_tasks:gives", {"plan": PLAN, "given": "other", "folder": "/x"})
        assert executor.ended() == (2, {"given": "other", "folder": False})
        kill_first(log)
        assert executor.ended() == (1, {"given": "again"})
        assert said == ["note: the worker of trial 1 died: its process ended; the trial is begun again"]
        executor.submit(3, "executor_tasks:ends_its_process", {"plan": PLAN})
        assert executor.ended() == (3, {"reason": "its worker died 2 times: its process ended"})
        executor.submit(4, "executor_tasks:fails", {"plan": PLAN})
        assert executor.ended() == (4, {"reason": "ValueError: not this one"})
        with pytest.raises(UsageError, match="no machine of the cluster has what a trial needs: CPU 64"):
            executor.submit(5, "executor_tasks:gives", {"plan": {**PLAN, "threads": 64}})
    assert signal.getsignal(signal.SIGTERM) is handler


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
    several, alone = tmp_path / "several", tmp_path / "alone"
    search = started(several, checkpoint, environment=environment, search={"sampler": "grid", "executor": executor})
    read_until(search, "trial 1 of 4")
    while not (workers := processes_with("DRUPE_CACHE", cluster.environment["DRUPE_CACHE"], "ray::drupe trial")):
        time.sleep(0.01)
    os.kill(workers[0], signal.SIGKILL)
    _, told = search.communicate()
    assert search.returncode == 0, told
    assert "died: its process ended; the trial is begun again" in told
    in_one_process = started(alone, checkpoint, environment=environment)
    _, told = in_one_process.communicate()
    assert in_one_process.returncode == 0, told
    assert results(several) == results(alone)
    for folder in (storage, Path(cluster.environment["DRUPE_CACHE"])):
        assert len(list(folder.glob("models/*"))) == 1


def test_a_stopped_search_leaves_nothing_of_the_ray_that_it_has_started(tmp_path: Path) -> None:
    checkpoint, home = make_checkpoint(tmp_path / "model"), tmp_path / "home"
    home.mkdir()
    with tempfile.TemporaryDirectory(prefix="drupe-", dir="/tmp") as temporary:
        environment = {**os.environ, "HOME": str(home), "TMPDIR": temporary, "DRUPE_CACHE": str(tmp_path / "cache")}
        search = started(tmp_path / "run", checkpoint, "--executor", "ray", environment=environment)
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
