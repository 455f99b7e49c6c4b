"""Rows: which field of a data set's rows holds the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import UsageError

TEXT = "text"


def field_of(row: Mapping[str, Any], asked: str | None, where: object) -> str:
    """The field that was asked for; otherwise `text`, or the only field that holds a string. where: for errors."""
    strings = [name for name, value in row.items() if isinstance(value, str)]
    if asked is not None and asked not in row:
        raise UsageError(f"there is no field '{asked}'", where=where, cure=_choice(strings))
    if asked is not None and asked not in strings:
        raise UsageError(f"the field '{asked}' holds no text", where=where, cure=_choice(strings))
    if asked is not None:
        return asked
    if TEXT in strings:
        return TEXT
    if len(strings) != 1:
        what = "several fields hold text" if strings else "no field holds text"
        named = f"'{TEXT}' does not" if TEXT in row else f"none is called '{TEXT}'"
        raise UsageError(f"{what}, and {named}", where=where, cure=_choice(strings))
    return strings[0]


def is_empty(row: Mapping[str, Any], field: str | None) -> bool:
    """Whether a row has null instead of its text. Data sets have such rows; they are left out."""
    return row.get(field or TEXT, "") is None or all(value is None for value in row.values())


def _choice(fields: list[str]) -> str:
    """The fields that could be named."""
    return "append the field: " + " or ".join(f"#{name}" for name in fields) if fields else "use another data set"
