"""The load that other programs put on this machine, as far as the system tells it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from drupe.api import usable_threads

STAT = Path("/proc/stat")
WINDOW = 0.3
"""Seconds for which the system's counters are watched."""
SLACK = 0.5
"""Cores that may be busy on a quiet machine."""
IDLE, WAITING = 3, 4
"""Of the counters of a processor in /proc/stat, those of the time in which nothing runs on it."""


def disturbance(window: float = WINDOW) -> str | None:
    """What other programs leave of the cores that this process may use; None where that is enough, or not known.

    This process must be idle meanwhile.
    """
    before = _counters()
    time.sleep(window)
    after = _counters()
    wanted = usable_threads()
    if not before or set(before) != set(after):
        return None
    idle = sum(_idle_share(before[cpu], after[cpu]) for cpu in before)
    return None if idle > wanted - SLACK else f"other programs leave {idle:.1f} of {wanted} cores idle"


def _counters() -> dict[str, list[int]]:
    """The counters of each processor that this process may run on; empty where the system has none."""
    if not hasattr(os, "sched_getaffinity"):
        return {}
    own = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    try:
        rows = [line.split() for line in STAT.read_text(encoding="ascii").splitlines()]
        return {row[0]: list(map(int, row[1:])) for row in rows if row and row[0] in own}
    except (OSError, ValueError):
        return {}


def _idle_share(before: list[int], after: list[int]) -> float:
    passed = [late - early for early, late in zip(before, after, strict=True)]
    return (passed[IDLE] + passed[WAITING]) / sum(passed) if sum(passed) else 1.0
