"""JSON files of a model's folder: each holds one object."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe_files import json_object
from drupe_tokenization.document import AGAIN


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where the file is missing."""
    return object_in({path.name: path}, path.name) if path.is_file() else {}


def object_in(files: Mapping[str, Path | bytes], name: str) -> dict[str, Any]:
    """The JSON object in one of the files, by its name; {} where it is missing."""
    if name not in files:
        return {}
    content = files[name]
    where = name if isinstance(content, bytes) else content
    return json_object(content if isinstance(content, bytes) else content.read_bytes(), name, where, AGAIN)
