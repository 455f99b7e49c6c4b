"""Reading the record that a package has of how it was made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from drupe.api import RECORD, ModelError

T = TypeVar("T")


def from_record(package: Path, read: Callable[[Any], T]) -> T | None:
    """What `read` takes out of the record of a package; None for a model without a record.

    Raises ModelError for a record that is damaged, or in which `read` does not find what it looks for.
    """
    record = package / RECORD
    if not record.is_file():
        return None
    try:
        return read(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        cure = "copy the package again, or make it again with drupe optimize"
        raise ModelError("the package's record is damaged", where=record, cure=cure) from error
