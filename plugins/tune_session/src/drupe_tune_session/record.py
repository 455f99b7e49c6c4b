"""Editing a package's drupe.json: the choice in its plan, and the digests of the files that were changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import RECORD, ModelError, Plan, PlannedPass, Registry
from drupe_files import content_digest
from drupe_files.package_record import from_record
from drupe_tune_session.plugin import NAME
from drupe_tune_session.tune_session import TuneSession, TuneSessionConfig


def recorded_in(folder: Path) -> tuple[dict[str, Any], Plan]:
    """The record of a package, and the plan in it. Raises ModelError for one that has none, or a damaged one."""
    found = from_record(folder, _with_plan)
    if found is None:
        raise ModelError(
            f"this is no package of Drupe: it has no {RECORD}",
            where=folder,
            cure=f"drupe run-pass {NAME} {folder} -o OUT makes one of it",
        )
    return found


def _with_plan(record: Any) -> tuple[dict[str, Any], Plan]:
    if not isinstance(record["passes"], list) or not isinstance(record["files"], dict):
        raise TypeError("passes and files have other types")
    return record, Plan.model_validate(record["plan"])


def earlier_choice(plan: Plan) -> dict[str, Any]:
    """What an earlier tuning has replaced, by setting."""
    return next((dict(each.config.get("replaced") or {}) for each in plan.passes if each.name == NAME), {})


def record_choice(
    folder: Path, record: Mapping[str, Any], plan: Plan, config: TuneSessionConfig, told: Mapping[str, Any], file: str,
    found: Registry,
) -> None:  # fmt: skip
    """Write the record of a package whose session was tuned. file: the name of the file that was changed."""
    plugin = found.passes.find(NAME).plugin
    stated = config.model_dump(mode="json", exclude_unset=True)
    planned = PlannedPass(
        name=NAME,
        config=stated,
        stage="tune",
        placed_by="the user",
        brought_by=plugin.title,
        revision=TuneSession.revision,
    )
    passes = [each for each in plan.passes if each.name != NAME]
    versions = dict(sorted({**plan.plugins, plugin.distribution: plugin.version}.items()))
    entry = {
        "name": NAME,
        "brought_by": plugin.title,
        "revision": TuneSession.revision,
        "config": config.model_dump(mode="json"),
        "measured": dict(told),
    }
    files = dict(record["files"])
    files.pop(file, None)
    path = folder / file
    if path.is_file():
        files[file] = {"bytes": path.stat().st_size, "sha256": content_digest(path)}
    document = {
        **record,
        "passes": [*(each for each in record["passes"] if each.get("name") != NAME), entry],
        "plan": plan.but(passes=(*passes, planned), plugins=versions).model_dump(mode="json"),
        "plugins": {**record.get("plugins", {}), plugin.distribution: plugin.version},
        "files": dict(sorted(files.items())),
    }
    (folder / RECORD).unlink(missing_ok=True)  # it is a link to the record of the package as it was
    (folder / RECORD).write_text(json.dumps(document, indent=1), encoding="utf-8")
