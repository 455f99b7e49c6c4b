"""The record of a package, drupe.json: reading it, and the errors of a damaged one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from drupe.api import RECORD, ModelError
from drupe_files.json_files import object_of

AGAIN = "copy the package again, or make it again with drupe optimize"
T = TypeVar("T")


def read_record(package: Path) -> dict[str, Any]:
    """The record of a package. Raises ModelError for one that is damaged or cannot be read."""
    return object_of(package / RECORD, RECORD, AGAIN)


def from_record(package: Path, read: Callable[[Any], T], cure: str = AGAIN) -> T | None:
    """What `read` takes out of the record of a package; None for a model without a record.

    Raises ModelError for a record that is damaged, or in which `read` does not find what it looks for.
    """
    record = package / RECORD
    if not record.is_file():
        return None
    try:
        return read(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError("the package's record is damaged", where=record, cure=cure) from error
