"""Progress of a long step: a moving bar on a terminal, a line or nothing elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from drupe.api import Progress, counted
from drupe_console.tables import size

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


def progress(*, lines: bool = True) -> Progress:
    """A moving bar on a terminal; elsewhere one line for each step, or nothing with lines=False. Prints to stderr."""
    if sys.stderr.isatty():
        return TerminalProgress()
    return LineProgress() if lines else Progress()


class TerminalProgress(Progress):
    """Shows how much is done and how much time is left, on one line that disappears when the step ends."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def start(self, label: str, total: int, unit: str = "bytes") -> None:
        from rich import progress as bar
        from rich.console import Console

        amounts: tuple[bar.ProgressColumn, ...] = (bar.MofNCompleteColumn(), bar.TextColumn(_plural(unit)))
        if unit == "bytes":
            amounts = (bar.DownloadColumn(), bar.TransferSpeedColumn())
        columns = (bar.TextColumn("{task.description}"), bar.BarColumn(), *amounts, bar.TimeRemainingColumn())
        self._bar = bar.Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(label, total=total)
        self._bar.start()

    def advance(self, amount: int) -> None:
        if self._bar and self._task is not None:
            self._bar.advance(self._task, amount)

    def finish(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None


class LineProgress(Progress):
    """Prints one line when a step has ended, for logs."""

    def __init__(self) -> None:
        self._label, self._unit, self._started, self._done, self._total = "", "", 0.0, 0, 0
        self._lock = threading.Lock()

    def start(self, label: str, total: int, unit: str = "bytes") -> None:
        self._label, self._unit, self._started, self._done, self._total = label, unit, time.perf_counter(), 0, total

    def advance(self, amount: int) -> None:
        with self._lock:
            self._done += amount

    def finish(self) -> None:
        seconds = time.perf_counter() - self._started
        ended = "" if self._done >= self._total else ", stopped before the end"
        amount = size(self._done) if self._unit == "bytes" else counted(self._done, self._unit, _plural(self._unit))
        print(f"{self._label}: {amount} in {seconds:.1f} s{ended}", file=sys.stderr)


def _plural(unit: str) -> str:
    return {"matrix": "matrices"}.get(unit, f"{unit}s")
