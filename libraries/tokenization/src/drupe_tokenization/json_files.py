"""JSON files of a model's folder: each holds one object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drupe.api import ModelError


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where the file is missing."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path.name} is not JSON: {error}", where=path) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path.name} is not a JSON object", where=path)
    return value
