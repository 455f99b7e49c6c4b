"""JSON files of a model's folder: each holds one object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import ModelError


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where the file is missing."""
    return object_in({path.name: path}, path.name) if path.is_file() else {}


def object_in(files: Mapping[str, Path | bytes], name: str) -> dict[str, Any]:
    """The JSON object in one of the files, by its name; {} where it is missing."""
    if name not in files:
        return {}
    content = files[name]
    where = name if isinstance(content, bytes) else content
    try:
        value = json.loads(content if isinstance(content, bytes) else content.read_bytes())
    except ValueError as error:
        raise ModelError(f"{name} is not JSON: {error}", where=where) from error
    if not isinstance(value, dict):
        raise ModelError(f"{name} is not a JSON object", where=where)
    return value
