"""What is told of a run: events as they happen, and measured numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from drupe.values.record import Record, field


class Event(Record):
    """Something that happened.

    name: "run-started", "pass-started", "pass-finished", "pass-cached", "run-finished", "write-started",
    "write-finished", "check-started", "check-finished", "published", "run-failed", "cache-dropped", "cache-failed".
    subject: the model, pass, folder or runtime it is about. seconds: how long it took, where it is an end.
    run: the run it belongs to. parent: the run that this run is a part of, such as the reference's build inside the
    closing check; empty for a run of its own.
    """

    name: str
    subject: str = ""
    seconds: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    parent: str = ""


class Metric(Record):
    """One measured number with what is needed to read it.

    better: the direction in which it improves. spread: the lowest and the highest value that repeating the measurement
    makes plausible; None where it was measured once. detail: what the number was made of, such as texts, as values that
    JSON has a form for; reports show it.
    """

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher"]
    spread: tuple[float, float] | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
