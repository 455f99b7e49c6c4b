"""Parsing sizes such as "250MB"."""

from __future__ import annotations

import re

from drupe.api import UsageError

UNITS = {
    "": 1,
    "b": 1,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "tb": 1e12,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}


def parse_size(text: str) -> int:
    """The bytes of "250MB", "1.5 GiB" or "1000000". Raises UsageError for other texts."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    if not found or found[2].lower() not in UNITS:
        raise UsageError(f"'{text}' is not a size", cure="give a size such as --target-size 250MB")
    return int(float(found[1]) * UNITS[found[2].lower()])
