"""Measuring what a page about a package would show, and its record does not have."""

from __future__ import annotations

import sys
from pathlib import Path

import drupe
from drupe.api import RECORD, ModelError, UsageError, evaluator_of, registry
from drupe_console import progress
from drupe_files.kept_measurements import keep_measurements, kept_measurements, measurement_by, refuse_unkeepable
from drupe_files.package_record import read_record

SHOWN = {"text-generation": ("layers", "samples")}
"""By task, the evaluators that have a part of the page of their own."""


def measure_missing(package: Path, against: str) -> None:
    """Measure a package against a model with the evaluators that its page shows, and keep what they give.

    The evaluator of the package's task is among them where the package was never compared with its source. Raises
    ModelError where none of them can measure against this model.
    """
    if not (package / RECORD).is_file():
        raise UsageError(
            f"--against has no effect for a folder without {RECORD}",
            where=package,
            cure="leave it out, or name a package of Drupe",
        )
    refuse_unkeepable(package)
    record, found = read_record(package), registry()
    kept = {each.evaluator for each in kept_measurements(record)}
    wanted = [name for name in SHOWN.get(record["task"], ()) if name in found.evaluators]
    own = evaluator_of("", record["task"], found)
    if own is not None and not record["check"]["metrics"]:
        wanted.insert(0, own.name)
    wanted = [name for name in wanted if name not in kept]
    failed: dict[str, ModelError] = {}
    for name in wanted:
        try:
            metrics = drupe.evaluate(package, against, evaluator=name, progress=progress(lines=False))
        except ModelError as error:
            failed[name] = error
            continue
        keep_measurements(package, [measurement_by(found.evaluators.make(name), {}, metrics, against)])
    if failed and len(failed) == len(wanted):
        raise next(iter(failed.values()))  # there is no such model, or it is no source of this package
    for name, refusal in failed.items():  # the page has its other parts all the same
        print(f"note: {name} cannot be measured: {refusal.what}", file=sys.stderr)
