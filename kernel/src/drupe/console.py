"""What the commands print: tables, sizes, progress."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from drupe.context import Progress
from drupe.events import Event
from drupe.hookspecs import hookimpl

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


UNFOLDED = 1000
"""Columns of an output that is no terminal."""


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> None:
    """Print rows in aligned columns, folded at words on a terminal and not at all elsewhere."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[str(cell) for cell in row] for row in rows]
    grid = Table(box=None, show_header=bool(head), pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for at in range(max(map(len, cells), default=len(head))):
        grid.add_column(head[at] if head else "", no_wrap=at == 0)
    for row in cells:
        grid.add_row(*map(Text, row))
    console = Console(width=None if sys.stdout.isatty() else UNFOLDED)
    with console.capture() as printed:
        console.print(grid)
    print("\n".join(line.rstrip() for line in printed.get().splitlines()))


def size(count: float) -> str:
    """Bytes for a person, in powers of 1000 as disks and files are sold."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.2f} GB"


def progress() -> Progress:
    """A moving bar on a terminal, one line a step elsewhere."""
    return TerminalProgress() if sys.stderr.isatty() else LineProgress()


class TerminalProgress(Progress):
    """Bytes done, rate and time left, on one line that is gone when the step ends."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def start(self, label: str, total: int, unit: str = "bytes") -> None:
        from rich import progress as bar
        from rich.console import Console

        amounts = (bar.DownloadColumn(), bar.TransferSpeedColumn()) if unit == "bytes" else (bar.MofNCompleteColumn(),)
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
    """One line when a step has ended, for logs."""

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
        amount = size(self._done) if self._unit == "bytes" else f"{self._done} {self._unit}"
        print(f"{self._label}: {amount} in {seconds:.1f} s{ended}", file=sys.stderr)


class Narrator:
    """An observer that prints the events of a run. level: 1 names steps and times, 2 adds their details."""

    def __init__(self, level: int) -> None:
        self.level = level

    @hookimpl
    def drupe_observe(self, event: Event) -> None:
        ended = "" if event.seconds is None else f" ({event.seconds:.2f} s)"
        print(f"{event.name}: {event.subject}{ended}", file=sys.stderr)
        for name, value in event.details.items():
            if self.level > 1 and name != "error":  # which the program ends with
                print(f"    {name}: {value}", file=sys.stderr)
