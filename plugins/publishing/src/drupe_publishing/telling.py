"""Telling observers of the steps of a run that are not passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from drupe.api import Run


@contextmanager
def told(run: Run, name: str, subject: str) -> Iterator[None]:
    """Tell observers when a block starts and finishes."""
    started = time.perf_counter()
    run.say(f"{name}-started", subject)
    yield
    run.say(f"{name}-finished", subject, time.perf_counter() - started)
