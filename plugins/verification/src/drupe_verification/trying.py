"""Trying a finished package in a separate process: it has to do its task, and to be close to its source."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import (
    Check,
    CheckFailed,
    DrupeError,
    Job,
    Model,
    ModelError,
    PlanError,
    Registry,
    RuntimeMissing,
    Session,
    Target,
    call,
    configure,
    error_from,
    registry,
    resolve,
    runtime_for,
    target_of,
)
from drupe_files import folder_bytes
from drupe_verification.measuring import MadeBy, measure

MAX_LENGTH = 64
"""Room for prompt and answer, in tokens. It is small, because runtimes allocate memory for all of it."""
REPORT = "please report this with the model's config.json"
HEADROOM = 1.3
"""The memory that a runtime needs for a package, as a multiple of the package's size."""


def try_package(package: Model, job: Job, target: Target) -> Check:
    """Run the package in `package.location` in a child process, and compare it with its source.

    Raises CheckFailed where the package does not open, does not do its task, or is not close to its source.
    """
    found = registry()
    if unknown := _unknown_task(package.task, found):
        return Check(not_run=unknown)
    try:
        runtime = runtime_for(package, target, found.provider(target.provider), found)
    except RuntimeMissing as missing:
        return Check(not_run=_with_cure(missing.what, missing.cure))
    needed, device = int(HEADROOM * folder_bytes(package.location)), target.device
    if device and device.memory is not None and device.memory < needed:
        return Check(runtime.name, f"it needs {needed >> 20} MiB of memory, and {device.memory >> 20} MiB are free")
    return _in_child(package, job, target, runtime.name)


def _unknown_task(task: str | None, found: Registry) -> str | None:
    """Why a package cannot be tried: its task is unknown. None where a plugin knows the task."""
    if task is None:
        return "the model's task is unknown"
    if task not in found.tasks:
        return f"no installed plugin knows the task '{task}'{found.why_missing(task)}"
    return None


def _in_child(package: Model, job: Job, target: Target, runtime: str) -> Check:
    started = time.perf_counter()
    planned = job.plan.check
    orders = {
        "package": str(package.location),
        "task": package.task,
        "provider": target.provider,
        "runtime": runtime,
        "source": {"location": str(job.source.location), **job.source.note()},
        "evaluator": planned.evaluator,
        "config": planned.config,
        "run": job.id,
        "made_by": MadeBy.of(job.plan, registry()).as_json(),
    }
    command = [sys.executable, "-P", "-m", "drupe_verification.trying", json.dumps(orders)]
    with tempfile.TemporaryDirectory(dir=package.location, ignore_cleanup_errors=True) as scratch:  # on its own disk
        there = {**os.environ, "TMPDIR": scratch}
        done = subprocess.run(command, env=there, capture_output=True, encoding="utf-8", errors="replace", check=False)
    seconds = time.perf_counter() - started
    if done.returncode == -getattr(signal, "SIGKILL", 9):
        return Check(runtime, "the system stopped the check, probably because memory ran out", seconds=seconds)
    answer = _answer(done)
    if "error" not in answer:
        return Check(runtime, seconds=seconds, **answer)
    error = error_from(answer)
    if isinstance(error, RuntimeMissing):
        return Check(runtime, _with_cure(error.what, error.cure), seconds=seconds)
    owner = registry().runtimes.find(runtime).plugin
    whose, report = "", REPORT
    if not owner.shipped:
        whose, report = f" of {owner.title}", f"report it to the makers of {owner.distribution}"
    raise CheckFailed(
        f"the package fails its check in {runtime}{whose}: {error.what}",
        cure=_with_cure(error.cure or report, "--no-verify publishes the package without the check"),
    )


def _answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The child's answer: the fields of Check, or an error. Without an answer, the end of its output is the error."""
    try:
        told = json.loads(done.stdout.splitlines()[-1])
        if isinstance(told, dict):
            return told
    except (ValueError, IndexError):
        pass
    tail = "\n".join(done.stderr.strip().splitlines()[-8:])
    return CheckFailed(tail or f"exit status {done.returncode}").document()


def _with_cure(what: str, cure: str | None) -> str:
    """Two cures in one line."""
    return f"{what}; {cure}" if cure else what


def main(orders: Mapping[str, Any]) -> dict[str, Any]:
    """The child's main function: open the package, try it, compare it with its source; returns the fields of Check."""
    found = registry()
    package = resolve(orders["package"], {}, found).but(task=orders["task"])
    provider = found.provider(orders["provider"])
    task, owner = found.tasks.make(orders["task"]), found.tasks.find(orders["task"]).plugin
    runtime = found.runtimes.make(orders["runtime"])
    opened = runtime.open(package, target_of(provider, found), max_length=MAX_LENGTH)
    if not isinstance(opened, Session):
        raise CheckFailed(f"{runtime.name} gave {opened!r} in place of an open session")
    with opened as session:
        missing = [name for name in task.offers if not hasattr(session, name)]
        if missing:
            raise CheckFailed(f"{runtime.name} opens the package, but its session does not offer {', '.join(missing)}")
        text = call(owner, f"check() of the task '{task.name}'", task.check, session, package)
    return {"text": text, **_compare(orders, found)}


def _compare(orders: Mapping[str, Any], found: Registry) -> dict[str, Any]:
    name = orders["evaluator"]
    if name is None:
        own = found.tasks.make(orders["task"]).evaluator
        why = (
            f"no evaluator '{own}' is installed"
            if own
            else f"no evaluator compares models of the task '{orders['task']}'"
        )
        return {"not_compared": why}
    evaluator = found.evaluators.make(name)
    config = configure(f"evaluator '{name}'", evaluator.Config, orders["config"])
    source = orders["source"]
    try:
        metrics = measure(
            orders["package"],
            Model.from_note(source, Path(source["location"])),
            evaluator,
            config,
            orders["provider"],
            parent=orders["run"],
            made_by=MadeBy.from_json(orders["made_by"]),
        )
    except (ModelError, PlanError, RuntimeMissing) as reason:
        return {"not_compared": reason.what}
    return {
        "metrics": {metric.name: metric.value for metric in metrics},
        "units": {metric.name: metric.unit for metric in metrics if metric.unit},
        "settings": config.model_dump(mode="json"),
    }


if __name__ == "__main__":
    try:
        answer = main(json.loads(sys.argv[1]))
        status = 0
    except DrupeError as error:
        answer = {**error.document(), "where": None}  # the folder does not exist any more when this is read
        status = error.exit_status
    print(json.dumps(answer))
    sys.stdout.flush()
    os._exit(status)  # skips a runtime's own clean-up at exit, which is not part of the check
