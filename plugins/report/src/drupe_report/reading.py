"""Reading: what the record of a package, its graph, and the trials of a search say, as plain values."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import RECORD, ModelError, UsageError
from drupe_onnx.outline import read_outline
from drupe_onnx.package_folder import graph_files

STUDY = "study.json"
_QUANTIZED = re.compile(r"_Q\d+[A-Z]+\d+_\w+$")
"""What ONNX Runtime's tools and ours put behind the name of a quantized weight: bits, symmetry, block size, role."""
_LAYER = re.compile(r"(?:^|[./])(?:layers|blocks|h|layer)\.(\d+)\.")
_UNTELLING = re.compile(r"weight|bias|scales?|zero_points?|transposed|\d+(-\d+)?")
"""Parts of names that do not say which matrix it is."""


def facts_of(source: Path) -> dict[str, Any]:
    """The facts of a package or of a study. Raises UsageError for a folder that is neither."""
    if (source / RECORD).is_file():
        return package_facts(source)
    if (source / STUDY).is_file():
        return study_facts(source)
    if not source.exists():
        raise UsageError("there is no such folder", where=str(source))
    if (source / "study.sqlite3").is_file():
        raise UsageError(
            "the search has chosen no trial: it was stopped, or no trial keeps to its limits",
            where=str(source),
            cure="run the search again: it goes on where it was stopped, or says which limit no trial keeps to",
        )
    raise UsageError(
        f"it has neither {RECORD} nor {STUDY}", where=str(source), cure="name a package that drupe made, or OUT.study"
    )


def package_facts(folder: Path) -> dict[str, Any]:
    """What the record and the graphs of a package say."""
    record = _document(folder / RECORD)
    try:
        files, check, timings = record["files"], record["check"], record["timings"]
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
            "bytes_by_layer": _by_layer(folder),
            "bytes_by_matrix": _by_matrix(folder),
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
        frontier, chosen = set(study["frontier"]), study["chosen"]
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


def _run(folder: Path, plan: str) -> str:
    """The command that makes a package again."""
    return f"drupe run {shlex.quote(f'{folder.absolute().name}/{plan}')} -o OUT"


def _by_layer(folder: Path) -> dict[str, int]:
    """Bytes of weights by part and number of the layer; all others under "outside of the layers"."""
    sizes: dict[tuple[str, int], int] = defaultdict(int)
    outside = 0
    for part, name, size in _weights(folder):
        if found := _LAYER.search(name):
            sizes[part, int(found[1])] += size
        else:
            outside += size
    layers = {f"{part} {number}".strip(): sizes[part, number] for part, number in sorted(sizes)}
    return {**layers, "outside of the layers": outside}


def _by_matrix(folder: Path) -> dict[str, int]:
    """Bytes of weights by what they belong to in each layer: the part, and the module's name without the number."""
    sizes: dict[str, int] = defaultdict(int)
    for part, name, size in _weights(folder):
        sizes[f"{part} {_matrix(name)}".strip()] += size
    return dict(sorted(sizes.items(), key=lambda each: -each[1]))


def _weights(folder: Path) -> list[tuple[str, str, int]]:
    """The part, name and bytes of each weight. part: empty where the package has one."""
    graphs = graph_files(folder)
    return [
        (role if len(graphs) > 1 else "", weight.name, weight.nbytes)
        for role, path in graphs.items()
        for weight in read_outline(path).weights
    ]


def _matrix(name: str) -> str:
    """The module of a weight: `model.layers.3.mlp.up_proj.weight_Q4A32_scales` is mlp.up_proj."""
    short = _QUANTIZED.sub("", _LAYER.split(name)[-1])
    parts = [part for part in re.split(r"[./]", short) if part and not _UNTELLING.fullmatch(part)]
    return ".".join(parts[-2:]) or name


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"it cannot be read: {error}", where=str(path)) from error
    return document
