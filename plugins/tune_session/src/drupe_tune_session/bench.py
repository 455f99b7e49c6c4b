"""SessionBench: opens a package with settings, and says what a run with them costs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from drupe.api import DrupeError
from drupe_timing import ANSWER, BATCH, LENGTH, PROMPT, PackageProcess
from drupe_tune_session.session_file import Changes, SessionFile

CHILD = "drupe_tune_session.child"
READ, WRITTEN = 32, 8
"""Tokens of the prompt and of the answer that are timed. The cost is that of PROMPT and ANSWER tokens."""


class SessionBench:
    """A context manager. All sessions are open in one process; one that fails is a DrupeError, and ends them all."""

    def __init__(self, folder: Path, provider: str, task: str | None, file: SessionFile) -> None:
        self._package = str(folder)
        self._first = {"provider": provider, "task": task}
        self._file = file
        self._stack = contextlib.ExitStack()
        self._process: PackageProcess | None = None
        self._open: list[str] = []
        self._case: dict[str, Any] = {}
        self._text = False

    def __enter__(self) -> SessionBench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def open(self, changes: Changes) -> None:
        """Open a session with changed settings, unless there is one, and run it once untimed."""
        name = _name(changes)
        if name in self._open:
            return
        self._file.write(changes)
        described = self._ask("open", name=name, room=READ + WRITTEN)
        self._open.append(name)
        if not self._case:
            self._case = self._case_of(described)
        self._ask("warm", name=name, **self._case)

    def close(self, changes: Changes) -> None:
        name = _name(changes)
        if name in self._open:
            self._open.remove(name)
            self._ask("close", name=name)

    def cost(self, changes: Changes) -> float:
        """Milliseconds of one run: of text, of reading a prompt and writing an answer of usual lengths."""
        values: Mapping[str, float] = self._ask("run", name=_name(changes), **self._case)["values"]
        if not self._text:
            return values["run_p50"]
        read: int = self._case["sizes"][LENGTH]
        return values["time_to_first_token"] * PROMPT / read + values["inter_token_p50"] * (ANSWER - 1)

    def _case_of(self, described: Mapping[str, Any]) -> dict[str, Any]:
        self._text = described["kind"] == "text"
        if not self._text:
            return {"sizes": described["sizes"], "new_tokens": WRITTEN}
        room = described["room"] or READ + WRITTEN
        written = min(WRITTEN, max(2, room // 2))
        return {"sizes": {LENGTH: max(1, min(READ, room - written)), BATCH: 1}, "new_tokens": written}

    def _ask(self, order: str, **values: Any) -> dict[str, Any]:
        if self._process is None:
            self._process = self._stack.enter_context(PackageProcess(CHILD, self._package, **self._first))
        try:
            return self._process.ask(order, **values)
        except DrupeError:  # it may have ended, or hold what is left of a session
            self._stack.close()
            self._process = None
            self._open.clear()
            raise


def _name(changes: Changes) -> str:
    return json.dumps(dict(changes), sort_keys=True)
