"""The executor `ray`: each task of a search is one of Ray's, on a cluster or on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from drupe.api import DrupeError, Record, UsageError, counted
from drupe_executor_ray.remote import carry_out
from drupe_executor_ray.session import connected
from drupe_executor_ray.settings import RayConfig, room
from drupe_executor_ray.storage import Storage, put_model_of

LOOK = 10.0
"""Seconds after which it is looked again which machines the cluster has."""
WAIT = 1.0
"""Seconds of each wait for a result: between two of them an interruption is seen."""


class _Given(Record):
    """A task that was given to Ray. lost: how many workers have died of it."""

    number: int
    function: str
    task: Mapping[str, Any]
    needed: Mapping[str, float]
    lost: int = 0


class RayExecutor:
    """Runs tasks with Ray. A task whose worker has died is begun again, wherever there is room."""

    Config = RayConfig

    def __init__(self, config: RayConfig, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self._storage = Storage(config.storage) if config.storage else None
        self._stored: set[str] = set()
        self._running: dict[Any, _Given] = {}
        self._needed: Mapping[str, float] = {}
        self._looked = -LOOK
        self._machines: list[Mapping[str, float]] = []

    def __enter__(self) -> RayExecutor:
        self._session = connected(self._config.address)
        self._ray, self._machine = self._session.__enter__()
        self._remote = self._ray.remote(max_retries=0)(carry_out)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._running.clear()
        self._session.__exit__(kind, error, at)

    @property
    def capacity(self) -> int:
        if self._config.workers is not None:
            return self._config.workers
        return max(1, room(self._seen_machines(), self._needed)) if self._needed else 1

    def submit(self, number: int, function: str, task: Mapping[str, Any]) -> None:
        task = {key: value for key, value in task.items() if key != "folder"}
        self._needed = self._config.needs(task["plan"], self._machine)
        if self._config.workers is None and not room(self._seen_machines(), self._needed):
            raise _no_room(self._needed)
        fingerprint = task["plan"]["source"]["fingerprint"]
        if self._storage is not None and fingerprint not in self._stored:
            put_model_of(task, self._storage)
            self._stored.add(fingerprint)
        self._give(_Given(number, function, task, self._needed))

    def ended(self) -> tuple[int, Mapping[str, Any]]:
        while True:
            done, _ = self._ray.wait(list(self._running), timeout=WAIT)
            for reference in done:
                given = self._running.pop(reference)
                result = self._result(reference, given)
                if result is not None:
                    return given.number, result

    def _give(self, given: _Given) -> None:
        others = {name: amount for name, amount in given.needed.items() if name not in ("CPU", "GPU", "memory")}
        options = self._remote.options(
            num_cpus=given.needed.get("CPU", 0),
            num_gpus=given.needed.get("GPU", 0),
            memory=given.needed.get("memory"),
            resources=others,
            name=f"drupe trial {given.number}",
        )
        here = str(Path.cwd())
        reference = options.remote(given.function, given.task, here, self._config.storage)
        self._running[reference] = given

    def _result(self, reference: Any, given: _Given) -> Mapping[str, Any] | None:
        """What a task that has ended gave; None where its worker died, and it is begun again."""
        from ray import exceptions

        try:
            found: Mapping[str, Any] = self._ray.get(reference)
            return found
        except exceptions.RayTaskError as error:
            return {"reason": _reason(error.cause)}
        except (
            exceptions.WorkerCrashedError,
            exceptions.OutOfMemoryError,
            exceptions.NodeDiedError,
            exceptions.ObjectLostError,
        ) as error:
            why = _WHY.get(type(error).__name__, "what it made is lost")
        except exceptions.RayError as error:
            raise DrupeError(f"Ray cannot run trials: {_first_line(error)}") from error
        if given.lost == self._config.retries:
            return {"reason": f"its worker died {counted(given.lost + 1, 'time')}: {why}"}
        self._say(f"note: the worker of trial {given.number} died: {why}; the trial is begun again")
        self._give(_Given(given.number, given.function, given.task, given.needed, given.lost + 1))
        return None

    def _seen_machines(self) -> list[Mapping[str, float]]:
        """What each machine of the cluster has."""
        if time.monotonic() - self._looked >= LOOK:
            self._machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self._looked = time.monotonic()
        return self._machines


_WHY = {
    "WorkerCrashedError": "its process ended",
    "OutOfMemoryError": "its machine had no memory left",
    "NodeDiedError": "its machine is gone",
}


def _reason(error: BaseException) -> str:
    return error.what if isinstance(error, DrupeError) else f"{type(error).__name__}: {error}"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _no_room(needed: Mapping[str, float]) -> UsageError:
    wanted = ", ".join(f"{name} {amount:g}" for name, amount in needed.items())
    return UsageError(
        f"no machine of the cluster has what a trial needs: {wanted}",
        where="search.executor",
        cure="set cpus, gpus and memory of the executor; or workers, which waits for machines that join",
    )
