"""Records in a graph's metadata, as JSON."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from drupe.api import ModelError, Record

Described = TypeVar("Described", bound=Record)


def record_from(text: str, of: type[Described], what: str) -> Described:
    """The record that a text holds; keys that a later version has added are ignored.

    what: what the record is, for the error. Raises ModelError for a broken one.
    """
    try:
        return msgspec.json.decode(text, type=of)
    except msgspec.DecodeError as error:
        raise ModelError(f"the graph's description of {what} is broken: {error}") from error
