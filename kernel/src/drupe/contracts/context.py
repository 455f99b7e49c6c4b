"""Context: what a pass, an evaluator or a writer is given besides its model."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drupe.contracts.runtime import Session
from drupe.errors import Cancelled, RuntimeMissing
from drupe.values.model import Model
from drupe.values.record import Record, field
from drupe.values.target import Target

MEMORY_BUDGET = 128 << 20  # bytes of weights in flight


def usable_threads() -> int:
    """How many threads this process may keep busy: its CPU affinity, and the CPU quota of its control group."""
    # The affinity is not known on macOS and Windows.
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no control group, or "max"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        count = min(count, max(1, round(int(quota) / int(period))))
    return count


class Progress:
    """Where a long step says how far it is. This one says nothing; what shows it overrides the first three."""

    def start(self, label: str, total: int, unit: str = "bytes") -> None:
        """A step of `total` units begins. unit: a noun in the singular ("block"), or "bytes"."""

    def advance(self, amount: int) -> None:
        """`amount` more units are done; may be called from any thread."""

    def finish(self) -> None:
        """The step has ended, well or not."""

    @contextmanager
    def task(self, label: str, total: int, unit: str = "bytes") -> Iterator[Progress]:
        """Start and finish a step around a block."""
        self.start(label, total, unit)
        try:
            yield self
        finally:
            self.finish()


def _nothing_opens(model: Model) -> Session:
    raise RuntimeMissing(f"there is no runtime here to open {model.location} with")


class Context(Record):
    """What a pass is given besides its model.

    target: what the model is made for.
    scratch: a folder of its own, removed afterwards.
    threads: how many threads it may keep busy.
    memory_budget: bytes of weights and activations that it may hold at once.
    seed: for all that is random.
    progress: where it says how far it is.
    cancelled: set when the user wants to stop.
    open: opens a model in the runtime that serves it on the target, or where its device is not here, on a processor;
    where none does, it raises RuntimeMissing.
    """

    target: Target
    scratch: Path
    threads: int = 1
    memory_budget: int = MEMORY_BUDGET
    seed: int = 0
    progress: Progress = field(default_factory=Progress)
    cancelled: threading.Event = field(default_factory=threading.Event)
    open: Callable[[Model], Session] = _nothing_opens

    def stop_if_cancelled(self) -> None:
        """Raise Cancelled when the user wants to stop; long loops call it often."""
        if self.cancelled.is_set():
            raise Cancelled
