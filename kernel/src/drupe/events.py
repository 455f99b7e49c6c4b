"""The events of a run, as observers and the user's terminal see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """Something that happened.

    name: "run-started", "pass-started", "pass-finished", "pass-cached", "write-started", "write-finished",
    "check-started", "check-finished", "published", "run-failed".
    subject: the pass, folder or runtime it is about. seconds: how long it took, where it is an end.
    """

    name: str
    subject: str = ""
    seconds: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
