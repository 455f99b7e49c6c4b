"""Reading: what the record of a package, its graph, and the trials of a search say, as plain values."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import RECORD, ModelError, asdict
from drupe_files.kept_measurements import kept_measurements
from drupe_files.package_record import read_record
from drupe_report.weight_bytes import by_layer, by_matrix, weight_bytes

STUDY, TRAINING = "study.json", "finetune.json"
SUFFIX = ".study"
"""Of the name of a study's folder, after the name of the package."""


def facts_of(source: Path) -> dict[str, Any]:
    """The facts of a package, a study or a training. Raises ModelError for a folder that is none of them."""
    refuse_other(source)
    if (source / RECORD).is_file():
        return package_facts(source)
    return study_facts(source) if (source / STUDY).is_file() else training_facts(source)


def refuse_other(source: Path) -> None:
    """Raise ModelError for what is no package, no study and no training."""
    if any((source / name).is_file() for name in (RECORD, STUDY, TRAINING)):
        return
    if not source.exists():
        raise ModelError(f"there is no folder '{source}'", cure="drupe optimize MODEL -o OUT makes a package")
    if (source / "study.sqlite3").is_file():
        raise ModelError(
            "the search has chosen no trial: it was stopped, or no trial keeps to its limits",
            where=str(source),
            cure="run the search again: it goes on where it was stopped, or says which limit no trial keeps to",
        )
    raise ModelError(
        f"it has neither {RECORD} nor {STUDY} nor {TRAINING}",
        where=str(source),
        cure="name a package that drupe made, OUT.study, or what drupe finetune made",
    )


def package_facts(folder: Path) -> dict[str, Any]:
    """What the record and the graphs of a package say."""
    record = read_record(folder)
    try:
        files, check, timings = record["files"], record["check"], record["timings"]
        weights = weight_bytes(folder)
        return {
            "kind": "package",
            "name": folder.absolute().name,
            "created": record["created"],
            "source": record["source"]["reference"],
            "task": record["task"],
            "provider": record["target"]["provider"],
            "precision": record["precision"],
            "threads": record["threads"],
            "bytes": sum(file["bytes"] for file in files.values()),
            "files": {name: file["bytes"] for name, file in files.items()},
            "bytes_by_layer": by_layer(weights),
            "bytes_by_matrix": by_matrix(weights),
            "seconds": {"conversion": timings["conversion_seconds"], "check": timings["check_seconds"]},
            "passes": [
                {**each, **took}
                for each, took in zip(
                    record["passes"], timings.get("passes") or [{}] * len(record["passes"]), strict=True
                )
            ],
            "checked": record["checked"],
            "not_run": check["not_run"],
            "runtime": f"{check['runtime']} {check['runtime_version'] or ''}".strip(),
            "text": check["text"],
            "metrics": [
                {"name": name, "value": value, "unit": check["units"].get(name, "")}
                for name, value in check["metrics"].items()
            ],
            "measured": [asdict(each) for each in kept_measurements(record)],
            "notices": record["notices"],
            "plan": record["plan"],
            "versions": {"drupe": record["drupe"], **record["plugins"], **record["libraries"]},
            "repeat": _run(folder, RECORD),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"the record is damaged, or of another version of Drupe: {error!r}",
            where=str(folder / RECORD),
            cure="make the package again",
        ) from error


def study_facts(folder: Path) -> dict[str, Any]:
    """What the trials of a search came to."""
    study = _document(folder / STUDY)
    try:
        frontier, left_brief, chosen = set(study["frontier"]), set(study["left_brief"]), study["chosen"]
        return {
            "kind": "study",
            "name": folder.absolute().name,
            "output": study["output"],
            "parameters": [each["name"] for each in study["parameters"]],
            "objectives": [
                {
                    "metric": each["metric"], "unit": each["unit"], "better": "lower" if each["sign"] > 0 else "higher",
                    "low": each["low"], "high": each["high"], "optimized": each["optimized"],
                }
                for each in study["objectives"]
            ],
            "trials": [
                {
                    "number": trial["number"],
                    "values": trial["values"],
                    "metrics": {name: metric["value"] for name, metric in trial["metrics"].items()},
                    "reason": trial["reason"],
                    "seconds": trial["seconds"],
                    "in_full": trial["in_full"],
                    "perhaps_on_frontier": trial["number"] in left_brief,
                    "on_frontier": trial["number"] in frontier,
                    "chosen": trial["number"] == chosen,
                    "plan": trial["plan"],
                }
                for trial in study["trials"]
            ],
            "repeat": _run(folder, f"plan-{chosen}.json"),
        }  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the study is damaged, or of another version of Drupe: {error!r}", where=str(folder / STUDY)
        ) from error


def training_facts(folder: Path) -> dict[str, Any]:
    """What a fine-tuning came to: its losses by step, and what it ran with."""
    note = _document(folder / TRAINING)
    try:
        return {
            "kind": "training",
            "name": folder.absolute().name,
            "method": note["settings"]["method"],
            "data": note["settings"]["data"],
            "base": note.get("base", {}),
            "rows": note["rows"],
            "left_out": list(note["left_out"]),
            "steps": note["steps"],
            "seconds": note["seconds"],
            "losses": {int(step): float(loss) for step, loss in note["losses"].items()},
            "evaluated": {int(step): float(loss) for step, loss in note["evaluated"].items()},
            "settings": note["settings"],
            "versions": note["versions"],
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"the record of the training is damaged, or of another version of Drupe: {error!r}",
            where=str(folder / TRAINING),
        ) from error


def _run(folder: Path, plan: str) -> str:
    """The command that makes a package again, under another name: the package itself is there."""
    name = folder.absolute().name
    return f"drupe run {shlex.quote(f'{name}/{plan}')} -o {shlex.quote(f'{name.removesuffix(SUFFIX)}-again')}"


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"it cannot be read: {error}", where=str(path)) from error
    return document
