"""How messages show what may be long: the first few of many things, and the beginning of a value."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

LONGEST = 80
"""Characters of a value that are shown."""


def listed(values: Sequence[object], most: int = 3) -> str:
    """The first `most` of some values, and how many more there are."""
    rest = len(values) - most
    return ", ".join(map(str, values[:most])) + (f" and {rest} more" if rest > 0 else "")


def shown(value: Any) -> str:
    """A value of a JSON file, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
