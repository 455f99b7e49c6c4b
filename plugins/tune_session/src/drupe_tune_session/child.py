"""The process in which a package is opened with one set of session options after another, and timed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import Session, registry, resolve_package, runtime_for, target_of
from drupe_timing import Case, Energy, Timer, serve, timer_of


class Sessions:
    """Sessions of one package, by a name that the order gives. Each has the options that the package had by then."""

    def __init__(self, package: str, provider: str, task: str | None) -> None:
        self._found = registry()
        chosen = self._found.provider(provider)
        self._target = target_of(chosen, self._found)
        self._model = resolve_package(package, self._found).but(task=task)
        self._runtime = runtime_for(self._model, self._target, chosen, self._found)
        self._energy = Energy()
        self._open: dict[str, tuple[Session, Timer]] = {}

    def open(self, name: str, room: int) -> dict[str, Any]:
        """Open a session with room for some tokens; says what it is, and on which sizes it is run by default."""
        session = self._runtime.open(self._model, self._target, max_length=room)
        timer = timer_of(session, self._model, self._target, self._found, self._energy)
        self._open[name] = session, timer
        return {"kind": timer.kind, "room": getattr(session, "max_length", None), "sizes": dict(timer.default_case())}

    def warm(self, name: str, sizes: Mapping[str, int], new_tokens: int) -> dict[str, Any]:
        self._open[name][1].warm(Case(tuple(sizes.items())), new_tokens)
        return {}

    def run(self, name: str, sizes: Mapping[str, int], new_tokens: int) -> dict[str, Any]:
        return {"values": self._open[name][1].run(Case(tuple(sizes.items())), new_tokens)}

    def close(self, name: str) -> dict[str, Any]:
        session, _ = self._open.pop(name)
        session.close()
        return {}


if __name__ == "__main__":
    serve(Sessions)
