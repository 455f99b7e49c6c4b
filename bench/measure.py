"""Measuring whole processes from outside: wall time, CPU time, peak memory. Also prints tables that compare them.

Keep this module and its importers light: on Linux a child's peak is at least what its parent held when it started.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drupe_timing import disturbance

CACHE = Path(__file__).resolve().parent / ".cache"
NOT_MEASURED = "not available on this system"


@dataclass(frozen=True)
class Measurement:
    """One run of a process with its children.

    wall_s, cpu_s: seconds; CPU is user and system time together. peak_bytes: the resident peak of its largest process.
    The last two are None where the system does not tell (Windows).
    """

    wall_s: float
    cpu_s: float | None
    peak_bytes: int | None


_NOT_INHERITED = {"PYTHONDONTWRITEBYTECODE"}
"""Environment variables that would slow down the start of a program compared with normal use."""


class Failed(Exception):
    """A measured process has failed. The message holds the end of its output, `status` its exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def measure(command: Sequence[object], *, environment: Mapping[str, str] | None = None) -> Measurement:
    """Run a command to its end. Raises Failed, with the end of its output, when its exit status is not 0."""
    words = [str(part) for part in command]
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    log = CACHE / "last-run.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        start = time.perf_counter()
        # Not a `with`: the process is waited for below, with its resource usage.
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**inherited, **(environment or {})}
        )
        status, cpu, peak = _wait(process)
        wall = time.perf_counter() - start
    if status:
        said = log.read_text("utf-8", "replace").replace("\r", "\n")[-4000:]
        raise Failed(f"exit status {status}: {' '.join(words)}\n{said}", status)
    return Measurement(wall, cpu, peak)


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, float | None, int | None]:
    """Wait for a process: (exit status, CPU seconds, peak bytes)."""
    if sys.platform == "win32":
        return process.wait(), None, None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit


def alternate(tools: Mapping[str, Callable[[], Measurement]], repeats: int) -> dict[str, list[Measurement]]:
    """Run the tools in turn, `repeats` times, so that other load on the machine disturbs all of them."""
    runs: dict[str, list[Measurement]] = {name: [] for name in tools}
    for number in range(repeats):
        for name, run in tools.items():
            runs[name].append(run())
            note(f"{name}, run {number + 1} of {repeats}: {runs[name][-1].wall_s:.2f} s")
    return runs


def best(runs: Sequence[Measurement]) -> dict[str, Any]:
    """The figures of several runs: the shortest wall time with its median, the least CPU time, the highest peak."""
    cpu = [run.cpu_s for run in runs if run.cpu_s is not None]
    peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    return {
        "wall_s": min(run.wall_s for run in runs),
        "wall_median_s": statistics.median(run.wall_s for run in runs),
        "cpu_s": min(cpu) if cpu else None,
        "peak_bytes": max(peaks) if peaks else None,
        "runs": [asdict(run) for run in runs],
    }


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def readable_failures() -> Iterator[None]:
    """End with the message of a Failed, without a traceback."""
    try:
        yield
    except Failed as failed:
        sys.exit(f"{failed}")


def note(line: str) -> None:
    """Progress, kept apart from the result."""
    print(line, file=sys.stderr, flush=True)


def python() -> str:
    """The Python interpreter that runs this program."""
    return sys.executable


def drupe() -> str:
    """The `drupe` program beside this interpreter, which is what a user starts, so the time of start-up counts."""
    return str(Path(sys.executable).with_name("drupe.exe" if os.name == "nt" else "drupe"))


def seconds(value: float | None) -> str:
    """Seconds for a person."""
    return NOT_MEASURED if value is None else f"{value:.2f} s"


def size(value: int | None) -> str:
    """Bytes for a person."""
    if value is None:
        return NOT_MEASURED
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"


def ratio(numerator: float | None, denominator: float | None) -> str:
    """The ratio as text; empty if one of the two numbers is not known."""
    return f"{numerator / denominator:.2f} x" if numerator is not None and denominator else ""


def busy_machine() -> str:
    """A line for the table when other processes keep this machine busy; ask before measuring."""
    told = disturbance()
    return f"The machine was busy ({told}): run again when it is idle." if told else ""


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], remarks: Sequence[str] = ()) -> None:
    """Print one table with its title and remarks: the first column names the figure, the others are numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    # Into a pipe or file a table is as wide as it needs to be.
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
    console.print(title, table, *filter(None, remarks), sep="\n")
