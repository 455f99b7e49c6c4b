"""Measurements that a package keeps in its record, drupe.json: reports show them."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import RECORD, Evaluator, Metric, ModelError, Record, UsageError, asdict, configure, registry, replace
from drupe_files.disk import disk_errors
from drupe_files.package_record import AGAIN, read_record
from drupe_files.whole_files import whole_file

MEASURED = "measured"
"""The key of the record that holds them. The record has no digest of itself, so its digests stay true."""


class Measurement(Record):
    """What an evaluator has measured of a package.

    brought_by: the evaluator's distribution with its version. against: what the package was compared with. settings:
    the evaluator's whole configuration. moment: when it was kept, as ISO 8601 has it.
    """

    evaluator: str
    brought_by: str
    metrics: tuple[Metric, ...]
    settings: Mapping[str, Any]
    against: str | None = None
    moment: str = ""


def measurement_by(
    evaluator: Evaluator, values: Mapping[str, Any], metrics: Sequence[Metric], against: str | None
) -> Measurement:
    """What an evaluator has measured. values: its settings that were set."""
    return Measurement(
        evaluator.name,
        registry().evaluators.find(evaluator.name).plugin.title,
        tuple(metrics),
        configure(f"evaluator '{evaluator.name}'", evaluator.Config, values).model_dump(mode="json"),
        None if evaluator.alone else against,
    )


def refuse_unkeepable(package: Path) -> None:
    """Raise UsageError for a model without a record, ModelError for a damaged one, OutputError for a read-only disk."""
    if not (package / RECORD).is_file():
        raise UsageError(
            f"measurements are kept in {RECORD}, and this model has none",
            where=package,
            cure="leave --keep out, or name a package of Drupe",
        )
    _older(package, read_record(package))
    tried = package / f".{RECORD}-{uuid.uuid4().hex[:12]}"
    with disk_errors(package):
        tried.touch()
        tried.unlink()


def keep_measurements(package: Path, measured: Sequence[Measurement]) -> None:
    """Write measurements into the record. They replace older ones of the same evaluators.

    The record is whole at all times. Raises ModelError for a damaged record.
    """
    record = read_record(package)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    names = {each.evaluator for each in measured}
    others = [each for each in _older(package, record) if each.evaluator not in names]
    record[MEASURED] = [*map(asdict, others), *(asdict(replace(each, moment=now)) for each in measured)]
    with disk_errors(package), whole_file(package / RECORD) as draft:
        draft.write_text(json.dumps(record, indent=1), encoding="utf-8")


def kept_measurements(record: Mapping[str, Any]) -> list[Measurement]:
    """The measurements in a record. Raises KeyError, TypeError or ValueError for a damaged one."""
    return [
        Measurement(**{**each, "metrics": tuple(Metric(**metric) for metric in each["metrics"])})
        for each in record.get(MEASURED, ())
    ]


def _older(package: Path, record: Mapping[str, Any]) -> list[Measurement]:
    try:
        return kept_measurements(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"the measurements in {RECORD} are damaged", where=package / RECORD, cure=AGAIN) from error
