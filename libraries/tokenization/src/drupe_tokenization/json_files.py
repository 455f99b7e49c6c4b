"""JSON files of a model's folder: each holds one object."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe_files import object_of
from drupe_tokenization.document import AGAIN


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where the file is missing."""
    return object_of(path if path.is_file() else None, path.name, AGAIN)


def object_in(files: Mapping[str, Path | bytes], name: str) -> dict[str, Any]:
    """The JSON object in one of the files, by its name; {} where it is missing."""
    return object_of(files.get(name), name, AGAIN)
