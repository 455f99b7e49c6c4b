"""The process that runs one package: it opens the package, and measures what it is told to, one order a line.

Orders come as JSON on standard input, and each is answered with a line of JSON. The process ends when the input does,
so it does not outlive the program that has started it.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from drupe.api import DrupeError, ModelError, Session, UsageError, registry
from drupe_decoding import TextSession
from drupe_eval_speed.cases import Case
from drupe_eval_speed.energy import Energy
from drupe_eval_speed.locating import located
from drupe_eval_speed.timing import GraphTimer, TextTimer, Timer
from drupe_files import peak_memory


class Measured:
    """The package of this process, open or not."""

    def __init__(self, package: str, provider: str | None) -> None:
        self._found = registry()
        here = located(package, provider, self._found)
        self._model, self._target, self._runtime = here.model, here.target, here.runtime
        self._session: Session | None = None
        self._timer: Timer | None = None
        self._energy = Energy()

    def open(self, room: int | None, threads: int) -> dict[str, Any]:
        """Open the package; how long that takes, and what the session is.

        room: for tokens; None for its own. threads: 0 for its own number.
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
        return {"milliseconds": seconds * 1e3, "threads": session.threads}

    def close(self) -> dict[str, Any]:
        """Close the session."""
        if self._session is not None:
            self._session.close()
        self._session = self._timer = None
        return {}

    def describe(self) -> dict[str, Any]:
        """What kind of session is open, its tokens and the room for them, and the sizes of a run by default."""
        timer = self._timer = self._timer_of(self._session)
        return {
            "kind": timer.kind,
            "room": getattr(self._session, "max_length", None),
            "vocabulary": getattr(self._session, "vocabulary", None),
            "sizes": dict(timer.default_case()),
            "energy_missing": self._energy.missing,
        }

    def warm(self, sizes: Mapping[str, int], new_tokens: int, vocabulary: int | None) -> dict[str, Any]:
        assert self._timer is not None
        self._timer.warm(Case(tuple(sizes.items())), new_tokens, vocabulary)
        return {}

    def run(self, sizes: Mapping[str, int], new_tokens: int) -> dict[str, Any]:
        assert self._timer is not None
        return {"values": self._timer.run(Case(tuple(sizes.items())), new_tokens)}

    def memory(self) -> dict[str, Any]:
        """The most memory that this process has held; None where the system does not tell."""
        return {"bytes": peak_memory()}

    def _timer_of(self, session: Session | None) -> Timer:
        assert session is not None
        if isinstance(session, TextSession):
            return TextTimer(session, self._energy)
        task = self._model.task
        if task is None or task not in self._found.tasks:
            known = "is not known" if task is None else f"'{task}' is one that no installed plugin knows"
            raise ModelError(
                f"the task of the model {known}, so there are no inputs to measure it with", where=self._model.location
            )
        return GraphTimer(session, self._model, self._target, self._found.tasks.make(task), self._energy)


@contextmanager
def answers() -> Iterator[IO[str]]:
    """Where answers go. What native code prints goes to standard error, so that it does not mix with them."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as there:
        os.dup2(2, 1)
        yield there


def main() -> None:
    """Carry out orders until the input ends. The first makes the object, each other calls a method of it."""
    package: Measured | None = None
    with answers() as there:
        for line in sys.stdin:
            order: dict[str, Any] = json.loads(line)
            name = order.pop("do")
            try:
                if package is None:
                    package, answer = Measured(**order), {}
                else:
                    answer = getattr(package, name)(**order)
            except DrupeError as error:
                answer = error.document()
            print(json.dumps(answer), file=there, flush=True)


if __name__ == "__main__":
    status = 1
    try:
        main()
        status = 0
    except BrokenPipeError:  # nobody waits for an answer any more
        pass
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)  # skips a runtime's own clean-up at exit, which is not part of the measurement
