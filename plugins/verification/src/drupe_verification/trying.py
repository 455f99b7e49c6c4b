"""Trying a finished package in a separate process: it has to do its task, and to be close to its source."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from drupe.api import (
    Check,
    CheckFailed,
    Job,
    Model,
    Registry,
    RuntimeMissing,
    Target,
    error_from,
    registry,
    runtime_for,
)
from drupe_files import memory_shortage
from drupe_processes.child import ChildEnded, ChildProcess
from drupe_verification.made_by import MadeBy

REPORT = "please report this with the model's config.json, or with its graph"


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
    if shortage := memory_shortage([package.location], target):
        needed, free = shortage
        return Check(runtime.name, f"it needs {needed} MiB of memory, and {free} MiB are free")
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
    with tempfile.TemporaryDirectory(dir=package.location, ignore_cleanup_errors=True) as scratch:  # on its own disk
        answer = _answer(orders, {**os.environ, "TMPDIR": scratch})
    seconds = time.perf_counter() - started
    if answer is None:
        return Check(runtime, "the system stopped the check, probably because memory ran out", seconds=seconds)
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


def _answer(orders: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any] | None:
    """The child's answer: the fields of Check, or an error. None where memory ran out.

    Without an answer, the end of the child's output is the error.
    """
    try:
        with ChildProcess("drupe_verification.trying_process", orders, environment) as child:
            answer: dict[str, Any] = child.receive()
            return answer
    except ChildEnded as end:
        if end.out_of_memory:
            return None
        return CheckFailed("\n".join(end.said) or f"exit status {end.status}").document()


def _with_cure(what: str, cure: str | None) -> str:
    """Two cures in one line."""
    return f"{what}; {cure}" if cure else what
