"""ChildProcess: a Python module that runs in a process of its own, as the parent sees it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import IO, Any

SHOWN = 8
"""Lines at the end of a child's standard error that are kept."""
_APART: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if sys.platform == "win32"
    else {"start_new_session": True}
)
"""Ctrl-C goes to the parent only, which then ends the child."""


class ChildEnded(Exception):
    """The child ended without an answer. said: the last lines of its standard error."""

    def __init__(self, status: int, said: tuple[str, ...] = ()) -> None:
        super().__init__(said[-1] if said else f"the process ended with status {status}")
        self.status = status
        self.said = said

    @property
    def out_of_memory(self) -> bool:
        """Whether the system stopped it, which it does where memory runs out."""
        return self.status == -getattr(signal, "SIGKILL", 9)


class ChildLate(ChildEnded):
    """The child was stopped, because it gave no answer in time."""

    out_of_memory = False

    def __init__(self, seconds: float, status: int) -> None:
        super().__init__(status, (f"no answer within {seconds:.0f} seconds",))


class ChildProcess:
    """A context manager; the process is ended with it, whatever it is doing."""

    def __init__(self, module: str, first: Any, environment: Mapping[str, str] | None = None) -> None:
        """module: it calls `drupe_processes.parent.run_as_child`. first: the first order, a value as JSON has them.

        environment: all variables of the process; those of this process by default.
        """
        with contextlib.ExitStack() as begun:
            self._said = begun.enter_context(tempfile.TemporaryFile())
            self._process = _start(module, environment, self._said)
            self._orders, self._answers = _pipe(self._process.stdin), _pipe(self._process.stdout)
            begun.callback(self.close)
            self.send(first)
            begun.pop_all()

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, order: Any) -> None:
        """Give the process an order."""
        with contextlib.suppress(OSError):  # where it has ended, `receive` says why
            print(json.dumps(order), file=self._orders, flush=True)

    def receive(self, within: float | None = None) -> Any:
        """The next answer. Raises ChildEnded where the process ends without one, ChildLate after `within` seconds."""
        with self._stopped(within) as is_late:
            for line in self._answers:
                with contextlib.suppress(ValueError):  # a line that Python's start-up or a crash has left
                    return json.loads(line)
        status = self._process.wait()
        if within is not None and is_late.is_set():
            raise ChildLate(within, status)
        self._said.seek(0)
        said = self._said.read().decode("utf-8", "replace").strip().splitlines()
        raise ChildEnded(status, tuple(said[-SHOWN:]))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._orders, self._answers):
            with contextlib.suppress(OSError):  # what was still to be written has no reader
                stream.close()
        self._said.close()

    @contextlib.contextmanager
    def _stopped(self, within: float | None) -> Iterator[threading.Event]:
        """Stops the process where the context takes longer than `within` seconds; gives whether it was stopped."""
        is_late = threading.Event()
        if within is None:
            yield is_late
            return

        def stop() -> None:
            is_late.set()
            self._process.kill()

        timer = threading.Timer(within, stop)
        timer.start()
        try:
            yield is_late
        finally:
            timer.cancel()


def _start(module: str, environment: Mapping[str, str] | None, said: IO[bytes]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],  # -P: Python must not import modules from the working folder
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        env=environment,
        encoding="utf-8",
        errors="replace",
        **_APART,
    )


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
