"""Finishing: what passes can do only to a package that has been written, such as measuring how fast it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import Model, Notice, Record, Run, call, ready, replace
from drupe_publishing.telling import told

HOOK = "drupe_finishers"
Answer = tuple[Mapping[str, Any], tuple[Notice, ...], Mapping[str, Any]]


class Finished(Record):
    """What finishers have done. run: with the configurations that repeat it. recorded: by pass, what is recorded of it.

    digests: of the files that are still as they were written.
    """

    run: Run
    notices: tuple[Notice, ...]
    recorded: Mapping[str, Mapping[str, Any]]
    digests: Mapping[str, str]


def finish(package: Model, run: Run, digests: Mapping[str, str]) -> Finished:
    """Let the finisher of each pass of the plan work on a package in a folder, before it is checked."""
    finishers = run.found.offered("finisher", HOOK)
    before = _states(package.location)
    notices: tuple[Notice, ...] = ()
    recorded: dict[str, Mapping[str, Any]] = {}
    for step in run.passes:
        name = step.planned.name
        if name not in finishers:
            continue
        entry = finishers.find(name)
        function: Any = entry.resolve()
        with told(run, "finish", name):
            answer: Answer | None = call(entry.plugin, f"the finisher '{name}'", function, package, step.config, run)
        if answer is None:
            continue
        config, noticed, recorded[name] = answer
        notices += noticed
        run = ready(replace(run.job, plan=run.job.plan.configured(name, **config)), run.found) if config else run
    after = _states(package.location)
    return Finished(
        run, notices, recorded, {name: each for name, each in digests.items() if before.get(name) == after.get(name)}
    )


def _states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Of each file in a folder, by name, what changes when it is written."""
    found = {each.relative_to(folder).as_posix(): each.stat() for each in folder.rglob("*") if each.is_file()}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}
