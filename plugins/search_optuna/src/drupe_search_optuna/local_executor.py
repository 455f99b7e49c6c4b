"""The executor `local`: worker processes on this machine."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from types import FrameType, TracebackType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from drupe.api import Record, counted

GRACE = 10.0
"""Seconds that a worker gets to clean up."""


class LocalConfig(BaseModel):
    """Settings of the executor."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    workers: int = Field(default=2, ge=1, le=256, description="how many trials run beside each other")
    retries: int = Field(default=2, ge=0, description="how often a trial is begun again when its worker has died")


class _Given(Record):
    """A task that was given to the executor. lost: how many workers have died of it."""

    number: int
    function: str
    task: dict[str, Any]
    lost: int = 0


class LocalExecutor:
    """Runs tasks in processes that stay for the next tasks. One that has died is replaced, and its task begun again."""

    Config = LocalConfig

    def __init__(self, config: LocalConfig, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self._waiting: deque[_Given] = deque()
        self._workers: list[_Worker] = []

    @property
    def capacity(self) -> int:
        return self._config.workers

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def submit(self, number: int, function: str, task: dict[str, Any]) -> None:
        self._waiting.append(_Given(number, function, task))
        self._give()

    def ended(self) -> tuple[int, Mapping[str, Any]]:
        while True:
            self._give()
            busy = {worker.line: worker for worker in self._workers if worker.given}
            worker = busy[wait(list(busy))[0]]  # type: ignore[index]  # it also waits for handles, of which none is here
            given, worker.given = worker.given, None
            assert given is not None
            try:
                return given.number, worker.line.recv()
            except (EOFError, OSError):
                self._workers.remove(worker)
                why = worker.why_dead()
            if given.lost == self._config.retries:
                return given.number, {"reason": f"its worker died {counted(given.lost + 1, 'time')}: {why}"}
            self._say(f"note: the worker of trial {given.number} died: {why}; the trial is begun again")
            self._waiting.appendleft(_Given(given.number, given.function, given.task, given.lost + 1))

    def _give(self) -> None:
        """Give what waits to workers that are free."""
        while self._waiting:
            free = next((worker for worker in self._workers if not worker.given), None)
            if free is None:
                if len(self._workers) == self._config.workers:
                    return
                free = _Worker()
                self._workers.append(free)
            free.take(self._waiting.popleft())


class _Worker:
    """A worker process, and what it does."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.line, other = context.Pipe()
        self.given: _Given | None = None
        self._process = context.Process(target=_work, args=(other,), daemon=True)
        self._process.start()
        other.close()  # so that the line ends with the worker

    def take(self, given: _Given) -> None:
        self.given = given
        try:
            self.line.send((given.function, given.task))
        except OSError:  # it died while it was free: the line says so when it is read
            return

    def stop(self) -> None:
        """Tell it to end."""
        self.line.close()
        if self.given:
            self._process.terminate()

    def end(self) -> None:
        """Wait for its end."""
        self._process.join(GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def why_dead(self) -> str:
        self.end()
        status = self._process.exitcode or 0
        if status >= 0:
            return f"it ended with status {status}"
        told = f"it was ended by {signal.Signals(-status).name}"
        return told + (", as by a system without free memory" if -status == getattr(signal, "SIGKILL", 0) else "")


def _work(line: Connection) -> None:
    """What a worker process does: tasks, until the line ends."""
    signal.signal(signal.SIGINT, _leave_to_parent)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as an interruption, what it has begun is cleaned up
    try:
        while True:
            function, task = line.recv()
            line.send(_result(function, task))
    except (EOFError, OSError, KeyboardInterrupt):
        os._exit(0)  # the search is over


def _leave_to_parent(number: int, frame: FrameType | None) -> None:
    """Ctrl-C on a terminal reaches the workers as well; the search decides what becomes of them."""


def _result(function: str, task: dict[str, Any]) -> Mapping[str, Any]:
    module, _, name = function.partition(":")
    try:
        made: Mapping[str, Any] = getattr(importlib.import_module(module), name)(task)
    except Exception as error:  # of any kind: it is the reason of the trial, as another process cannot raise it
        return {"reason": f"{type(error).__name__}: {error}"}
    return made
