"""A clock for what plugins take, that only plugins move: no machine is slow by it."""

from __future__ import annotations

import pytest


class Clock:
    """Stands for the module `time` in `drupe.containment`. A plugin's code takes its time with TAKES."""

    def __init__(self) -> None:
        self._now = 0.0

    def perf_counter(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


TAKES = "__import__('drupe.containment').containment.time.sleep({})"
"""Python code that takes a number of seconds by the clock."""


def install_clock(patch: pytest.MonkeyPatch) -> None:
    """Let plugins' time be taken by a Clock, with the limit of one second."""
    patch.setattr("drupe.containment.time", Clock())
    patch.setattr("drupe.containment.SLOW", 1.0)
