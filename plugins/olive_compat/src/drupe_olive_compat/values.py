"""Values of a file as Olive takes them: its types convert texts that spell a number, and null is as good as nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from drupe.api import UsageError
from drupe_olive_compat.answers import kept

NOT_GIVEN = kept("null is as if it were not there")
_SPELT = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?|true|false", re.IGNORECASE)


def as_taken(value: Any) -> Any:
    """A value in which texts that spell a number or a truth value are one, at any depth: "32", "1e-4", "False"."""
    if isinstance(value, Mapping):
        return {key: as_taken(each) for key, each in value.items()}
    if isinstance(value, list):
        return [as_taken(each) for each in value]
    if isinstance(value, str) and _SPELT.fullmatch(value):
        return _spelt(value)
    return value


def _spelt(text: str) -> Any:
    """The number or truth value that a text spells; the text where JSON would write it otherwise, as 007."""
    try:
        value = json.loads(text.casefold())
    except ValueError:
        return text
    return value if not isinstance(value, float) or math.isfinite(value) else text


def a_text(value: Any, place: str) -> str:
    """A name or a path. A number stands for itself. Raises UsageError for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{value!r} does not fit: a text is wanted", where=place)
    return str(value)


def a_list(value: Any, place: str) -> list[Any]:
    """A list; of nothing where there is none. Raises UsageError for anything else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise UsageError(f"{value!r} does not fit: a list is wanted", where=place)
    return value
