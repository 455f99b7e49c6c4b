"""Executing: where the tasks of a search run. The hook `drupe_executors` says what an executor has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol

from drupe.api import UsageError, call, configure, registry
from drupe_search_optuna.trials import CARRIED_OUT, Task, carried_out

HOOK = "drupe_executors"
PLACE = "search.executor"


class Executor(Protocol):
    """See the hook."""

    @property
    def capacity(self) -> int: ...
    def submit(self, number: int, function: str, task: Task) -> None: ...
    def ended(self) -> tuple[int, Mapping[str, Any]]: ...
    def __enter__(self) -> Any: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class InThisProcess:
    """Runs one task at a time, in this process."""

    capacity = 1

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Task]] = []

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._waiting.clear()

    def submit(self, number: int, function: str, task: Task) -> None:
        assert function == CARRIED_OUT
        self._waiting.append((number, task))

    def ended(self) -> tuple[int, Mapping[str, Any]]:
        number, task = self._waiting.pop(0)
        return number, carried_out(task)


class Guarded:
    """An executor of a plugin, whose errors name the plugin."""

    def __init__(self, made: Executor, guard: Callable[..., Any]) -> None:
        self._made = made
        self._guard = guard

    def __enter__(self) -> Guarded:
        self._guard(self._made.__enter__)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._guard(self._made.__exit__, kind, error, at)

    @property
    def capacity(self) -> int:
        return int(self._guard(lambda: self._made.capacity))

    def submit(self, number: int, function: str, task: Task) -> None:
        self._guard(self._made.submit, number, function, task)

    def ended(self) -> tuple[int, Mapping[str, Any]]:
        found: tuple[int, Mapping[str, Any]] = self._guard(self._made.ended)
        return found


def executor_for(settings: Mapping[str, Any], say: Callable[[str], None]) -> Executor:
    """The executor that a search names; for none, this process. Raises UsageError for settings that it does not have.

    say: prints a line.
    """
    if not settings:
        return InThisProcess()
    offered = registry().offered("executor", HOOK)
    values = dict(settings)
    name = values.pop("name", None)
    if not isinstance(name, str):
        names = " or ".join(entry.ref.name for entry in offered)
        raise UsageError("the executor has no name", where=PLACE, cure=f"name: {names}; or --executor")
    if name not in offered and name in NOT_HERE:
        raise UsageError(f"the executor '{name}' is not installed", where=PLACE, cure=NOT_HERE[name])
    try:
        entry = offered.find(name)
        made: Any = entry.resolve()
        config = configure(f"executor '{name}'", made.Config, values)
    except UsageError as error:
        error.where = error.where or PLACE
        raise

    def guard(function: Callable[..., Any], *arguments: Any) -> Any:
        return call(entry.plugin, f"running trials with {entry.title}", function, *arguments)

    return Guarded(guard(made, config, say), guard)


NOT_HERE = {"ray": "pip install 'drupe[ray]'"}
"""Executors that Drupe has beside the default distributions, and what installs them."""
