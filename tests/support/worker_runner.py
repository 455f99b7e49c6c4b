"""A runner that carries out plans in a worker process. Only folders, lines of JSON and one word pass between the two.

The worker is this file, run as a program. It reads its job from a folder, stops at the word "cancel" on its standard
input, and writes events, progress and a possible error to its standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from drupe.api import (
    DrupeError,
    Event,
    InProcess,
    Job,
    Model,
    Plan,
    Progress,
    Runner,
    asdict,
    error_from,
    keep_model,
    kept_model,
    ready,
    registry,
)
from drupe_files import FolderCache

ORDERS, SOURCE, RESULT, SCRATCH = "orders.json", "source", "result", "scratch"


class Worker(Runner):
    """Carries out each plan in a new process.

    by_reference: the worker resolves the source named by the plan. Otherwise this process stores it in a folder.
    """

    def __init__(self, by_reference: bool = False) -> None:
        self.by_reference = by_reference
        self.pid: int | None = None

    def run(self, job: Job) -> Model:
        folder = job.scratch / "worker"
        self._prepare(job, folder)
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = process.pid
        assert process.stdin is not None and process.stdout is not None
        with process, _cancelling(job, process.stdin):
            for line in process.stdout:
                _take(json.loads(line), job)
        if process.returncode:
            raise DrupeError(f"the worker ended with status {process.returncode}")
        return kept_model(folder / RESULT, registry())

    def _prepare(self, job: Job, folder: Path) -> None:
        """Write all that the worker needs into a folder."""
        for name in (SOURCE, RESULT, SCRATCH):
            (folder / name).mkdir(parents=True)
        orders = {"plan": job.plan.model_dump(mode="json"), "id": job.id, "parent": job.parent}
        (folder / ORDERS).write_text(json.dumps({**orders, "by_reference": self.by_reference}))
        if not self.by_reference:
            keep_model(job.source, folder / SOURCE, ready(job, registry()).context)


@contextlib.contextmanager
def _cancelling(job: Job, orders: TextIO) -> Iterator[None]:
    """Tell the worker to stop when the user cancels the run or interrupts this process."""
    over = threading.Event()

    def wait() -> None:
        while not over.is_set():
            if job.cancelled.wait(0.02):
                with contextlib.suppress(BrokenPipeError):  # the worker has ended meanwhile
                    print("cancel", file=orders, flush=True)
                return

    watching = threading.Thread(target=wait)
    watching.start()
    try:
        yield
    except KeyboardInterrupt:
        job.cancelled.set()
        raise
    finally:
        over.set()
        watching.join()


def _take(told: dict[str, Any], job: Job) -> None:
    """Handle a line of the worker's output."""
    if "event" in told:
        job.emit(Event(**told["event"]))
    elif "progress" in told:
        step, *arguments = told["progress"]
        getattr(job.progress, step)(*arguments)
    else:
        raise error_from(told["error"])


# The worker's side


class _Told(Progress):
    """Progress that is written as lines."""

    def start(self, label: str, total: int, unit: str = "bytes") -> None:
        _tell(progress=["start", label, total, unit])

    def advance(self, amount: int) -> None:
        _tell(progress=["advance", amount])

    def finish(self) -> None:
        _tell(progress=["finish"])


_out = threading.Lock()


def _tell(**what: Any) -> None:
    with _out:
        print(json.dumps(what, default=str), file=sys.__stdout__, flush=True)


def main(folder: Path) -> None:
    """Carry out the job in a folder, and store the result there."""
    orders = json.loads((folder / ORDERS).read_text())
    plan, found = Plan.model_validate(orders["plan"]), registry()
    source = found.publisher().source_of(plan) if orders["by_reference"] else kept_model(folder / SOURCE, found)
    job = Job(
        plan,
        source,
        orders["id"],
        folder / SCRATCH,
        parent=orders["parent"],
        emit=lambda event: _tell(event=asdict(event)),
        progress=_Told(),
    )
    threading.Thread(target=_listen, args=(job,), daemon=True).start()
    keep_model(InProcess(FolderCache()).run(job), folder / RESULT, ready(job, found).context)


def _listen(job: Job) -> None:
    for line in sys.stdin:
        if line.strip() == "cancel":
            job.cancelled.set()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except DrupeError as error:
        _tell(error=error.document())
    os._exit(0)  # standard input is still being read
