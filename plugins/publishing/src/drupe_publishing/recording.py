"""Recording: what ran, with which versions and configuration, in the package's drupe.json."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from email.message import Message
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path
from typing import Any

from drupe.api import KERNEL, RECORD, Check, Notice, ReadyPass, Registry, Run, asdict, canonical
from drupe_files import disk_errors, file_digest
from drupe_publishing.finishing import Finished
from drupe_publishing.repeating import fixed_plan

RECORD_VERSION = 2


def record(
    folder: Path,
    finished: Finished,
    timings: Mapping[str, Any],
    verdict: Check,
    notices: Iterable[Notice],
) -> None:
    """Write drupe.json into the package."""
    document = _document(folder, finished, timings, verdict, notices)
    with disk_errors(folder):
        (folder / RECORD).write_text(json.dumps(document, indent=1), encoding="utf-8")


def _document(
    folder: Path,
    finished: Finished,
    timings: Mapping[str, Any],
    verdict: Check,
    notices: Iterable[Notice],
) -> dict[str, Any]:
    run = finished.run
    job, found = run.job, run.found
    plan = fixed_plan(job.plan, job.source, found)
    return {
        "version": RECORD_VERSION,
        "drupe": metadata.version(KERNEL),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": plan.source.model_dump(mode="json", exclude={"options"}),
        "target": _target(run),
        "task": job.source.task,
        "precision": plan.target.precision,
        "threads": run.context.threads,
        "recipe": plan.recipe,
        "passes": [{**_pass(step), **finished.recorded.get(step.planned.name, {})} for step in run.passes],
        "plan": plan.model_dump(mode="json"),
        "plugins": {plugin.distribution: plugin.version for plugin in found.working},
        "libraries": _libraries(run),
        "timings": timings,
        "checked": verdict.not_run is None,
        "notices": [asdict(notice) for notice in notices],
        "check": _check(verdict, found),
        "files": _files(folder, finished.digests),
    }


def _target(run: Run) -> dict[str, Any]:
    target = run.context.target
    return {
        "provider": target.provider,
        "runtime_version": target.runtime_version,
        "brought_by": run.found.providers.find(target.provider).plugin.title,
    }


def _pass(step: ReadyPass) -> dict[str, Any]:
    return {
        "name": step.planned.name,
        "brought_by": step.plugin.title,
        "revision": step.runner.revision,
        "config": step.config.model_dump(mode="json"),
    }


def _check(verdict: Check, found: Registry) -> dict[str, Any]:
    """The result of the check, and the version of the runtime that it ran in."""
    version = found.runtimes.make(verdict.runtime).version() if verdict.runtime else None
    return {**asdict(verdict), "runtime_version": version}


def _files(folder: Path, digests: Mapping[str, str]) -> dict[str, Any]:
    """The size and SHA-256 of each file. digests: those that are known without reading a file."""
    files = {each.relative_to(folder).as_posix(): each for each in sorted(folder.rglob("*")) if each.is_file()}
    return {
        name: {"bytes": file.stat().st_size, "sha256": digests.get(name) or file_digest(file)}
        for name, file in files.items()
    }


def _libraries(run: Run) -> dict[str, str]:
    """The versions of all direct and indirect requirements of the plan's plugins, except the kernel's."""
    from packaging.requirements import Requirement

    left = {step.plugin.distribution for step in run.passes}
    headers = {owner: _headers(owner) for owner in left}
    found: dict[str, str] = {}
    while left:
        texts = [text for owner in left for text in headers[owner].get_all("Requires-Dist", ()) if ";" not in text]
        left = {canonical(Requirement(text).name) for text in texts} - {KERNEL, *found}
        headers = {name: _headers(name) for name in left}
        found |= {name: of["Version"] for name, of in headers.items()}
    return dict(sorted(found.items()))


def _headers(distribution: str) -> Message:
    """What a distribution says of itself, without its description, which takes long to read."""
    found = metadata.distribution(distribution)
    text = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""
    return HeaderParser().parsestr(text.partition("\n\n")[0])
