"""JSON files: reading their content, and saying in plain words what is wrong with it."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import ModelError
from drupe_files.unreadable import unreadable

BLANK = b"\0 \t\r\n"
MARKS: Mapping[bytes, str] = {
    codecs.BOM_UTF8: "begins with a byte order mark, which JSON does not allow",
    codecs.BOM_UTF16_LE: "is text in UTF-16, and JSON is in UTF-8",
    codecs.BOM_UTF16_BE: "is text in UTF-16, and JSON is in UTF-8",
}
"""By the first bytes of a file that an editor has saved in another encoding: what is wrong with it."""
SAVE_AGAIN = "save it as UTF-8 without a byte order mark"
FORMS: Mapping[type, str] = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}


def json_value(content: bytes, name: str, where: Path | str, cure: str) -> Any:
    """What a JSON file holds. Raises ModelError for content that is no JSON.

    name: of the file. where: its path, or its name where only the content is known. cure: how to get a whole file.
    """
    for mark, wrong in MARKS.items():
        if content.startswith(mark):
            raise ModelError(f"{name} {wrong}", where=where, cure=f"{SAVE_AGAIN}, or {cure}")
    if not content.strip(BLANK):
        raise ModelError(f"{name} {_blank(content)}", where=where, cure=cure)
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name} is not JSON: {_complaint(error)}", where=where, cure=cure) from error


def json_object(content: bytes, name: str, where: Path | str, cure: str) -> dict[str, Any]:
    """The object that a JSON file holds, as `json_value`. Raises ModelError for any other content."""
    value = json_value(content, name, where, cure)
    if not isinstance(value, dict):
        form = FORMS.get(type(value), "null")
        raise ModelError(f"{name} is not a JSON object but {form}", where=where, cure=cure)
    return value


def object_of(content: Path | bytes | None, name: str, cure: str) -> dict[str, Any]:
    """The object in a JSON file, by its path or its content; {} for None. Raises ModelError, as `json_object`."""
    if content is None:
        return {}
    if isinstance(content, bytes):
        return json_object(content, name, name, cure)
    try:
        read = content.read_bytes()
    except OSError as error:
        raise unreadable(content, error) from error
    return json_object(read, name, content, cure)


def _complaint(error: ValueError | RecursionError) -> str:
    """What is wrong with a text that is no JSON, with the place where that is known."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not text in UTF-8"
    if isinstance(error, json.JSONDecodeError):
        if error.pos >= len(error.doc.rstrip()):
            return f"it breaks off in line {error.lineno}"
        return f"{error.msg.removesuffix(' at')} in line {error.lineno}, column {error.colno}"
    return "its values are nested too deeply" if isinstance(error, RecursionError) else "a number is too long"


def _blank(content: bytes) -> str:
    if not content:
        return "is empty"
    return "holds only blanks and zero bytes" if b"\0" in content else "holds only blanks"
