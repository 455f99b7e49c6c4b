"""The process that runs one package: it opens the package, and measures what it is told to."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from typing import Any

from drupe.api import Session, UsageError, registry
from drupe_decoding import TextSession
from drupe_eval_speed.locating import located
from drupe_files import peak_memory
from drupe_timing import Case, Energy, Timer, serve, timer_of


class Measured:
    """The package of this process, open or not."""

    def __init__(self, package: str, provider: str | None) -> None:
        self._found = registry()
        here = located(package, provider, self._found)
        self._model, self._target, self._runtime = here.model, here.target, here.runtime
        self._session: Session | None = None
        self._timer: Timer | None = None
        self._energy = Energy()

    def open(self, room: int | None, threads: int, adapter: str = "") -> dict[str, Any]:
        """Open the package; how long that takes, and what the session is.

        room: for tokens; None for its own. threads: 0 for its own number. adapter: what is active; empty for none.
        """
        settings: dict[str, Any] = {"max_length": room}
        if threads:
            if "threads" not in inspect.signature(type(self._runtime).open).parameters:
                what = f"the runtime {self._runtime.name} takes no number of threads"
                raise UsageError(what, cure="leave the number of threads out")
            settings["threads"] = threads
        start = time.perf_counter()
        session = self._session = self._runtime.open(self._model, self._target, **settings)
        seconds = time.perf_counter() - start
        if adapter:
            if not isinstance(session, TextSession):
                what = f"the runtime {self._runtime.name} switches no adapters"
                raise UsageError(what, where=self._model.location, cure="leave the adapter out")
            session.use_adapter(adapter)
        return {"milliseconds": seconds * 1e3, "threads": session.threads}

    def close(self) -> dict[str, Any]:
        """Close the session."""
        if self._session is not None:
            self._session.close()
        self._session = self._timer = None
        return {}

    def describe(self) -> dict[str, Any]:
        """What kind of session is open, its tokens and the room for them, and the sizes of a run by default."""
        assert self._session is not None
        timer = self._timer = timer_of(self._session, self._model, self._target, self._found, self._energy)
        return {
            "kind": timer.kind,
            "room": getattr(self._session, "max_length", None),
            "vocabulary": getattr(self._session, "vocabulary", None),
            "sizes": dict(timer.default_case()),
            "energy_missing": self._energy.missing,
        }

    def warm(self, sizes: Mapping[str, int], new_tokens: int, vocabulary: int | None, brief: bool) -> dict[str, Any]:
        assert self._timer is not None
        self._timer.warm(Case(tuple(sizes.items())), new_tokens, vocabulary, brief)
        return {}

    def run(self, sizes: Mapping[str, int], new_tokens: int) -> dict[str, Any]:
        assert self._timer is not None
        return {"values": self._timer.run(Case(tuple(sizes.items())), new_tokens)}

    def memory(self) -> dict[str, Any]:
        """The most memory that this process has held; None where the system does not tell."""
        return {"bytes": peak_memory()}


if __name__ == "__main__":
    serve(Measured)
