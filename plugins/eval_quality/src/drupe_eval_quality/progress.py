"""Bar: progress on a terminal, nothing elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from drupe.api import Progress


class Bar(Progress):
    """One line on stderr that is gone when the step ends."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._shown: RichProgress | None = None

    def start(self, label: str, total: int, unit: str = "bytes") -> None:
        columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
        self._shown = RichProgress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        )
        self._shown.add_task(label, total=total)
        self._shown.start()

    def advance(self, amount: int) -> None:
        if self._shown:
            self._shown.advance(self._shown.task_ids[0], amount)

    def finish(self) -> None:
        if self._shown:
            self._shown.stop()
            self._shown = None
