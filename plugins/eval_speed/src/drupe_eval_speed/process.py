"""PackageProcess: a package that is open in a process of its own, as the measuring program sees it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any

from drupe.api import CheckFailed, error_from

SHOWN = 8
"""Lines at the end of what a process has printed that are shown where it ends too early."""
CHILD = "drupe_eval_speed.child"
_APART: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if sys.platform == "win32"
    else {"start_new_session": True}
)
"""Ctrl-C goes to the program only, which then ends the processes."""


class PackageProcess:
    """A context manager; the process is ended with it, whatever it is doing. Each method waits for an answer."""

    def __init__(self, package: str, provider: str | None) -> None:
        self._package = package
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            **_APART,
        )
        self._first = {"package": package, "provider": provider}

    def __enter__(self) -> PackageProcess:
        try:
            self.ask("start", **self._first)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def ask(self, order: str, **values: Any) -> dict[str, Any]:
        """Have an order carried out; returns the answer. Raises the error that the process tells of.

        Raises CheckFailed where the process ends without an answer.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps({"do": order, **values}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except OSError:  # it has ended before it could read the order
            line = ""
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            error = error_from(answer)
            error.where = error.where or self._package
            raise error
        return answer

    def _ended(self) -> CheckFailed:
        status = self._process.wait()
        if status == -getattr(signal, "SIGKILL", 9):
            what = "the system stopped the process that runs the package, probably because memory ran out"
            return CheckFailed(what, where=self._package, cure="measure one package at a time, or smaller cases")
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace").strip().splitlines()
        tail = "".join(f"\n  {line}" for line in said[-SHOWN:])
        return CheckFailed(
            f"the process that runs the package ended before it was measured (exit status {status}){tail}",
            where=self._package,
        )

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was still to be written has no reader
                    stream.close()
        self._log.close()
