"""The cache: its folder on this platform, its limit, and the keys of what is kept in it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import UsageError

LIMIT, DEFAULT_LIMIT = "DRUPE_CACHE_LIMIT", "50GB"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def cache_folder() -> Path:
    """Where the cache lives: DRUPE_CACHE, or this platform's folder for caches."""
    if chosen := os.environ.get("DRUPE_CACHE"):
        return Path(chosen)
    try:
        home = Path.home()
    except RuntimeError:  # a user that the system does not know
        home = Path(tempfile.gettempdir())
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local")) / "drupe"
    if sys.platform == "darwin":
        return home / "Library/Caches/drupe"
    return Path(os.environ.get("XDG_CACHE_HOME", home / ".cache")) / "drupe"


def key_of(parts: Mapping[str, Any]) -> str:
    """The 256-bit key of all that decides a result."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def cache_limit() -> float:
    """How many bytes the entries of the cache may have: DRUPE_CACHE_LIMIT, or 50 GB. Raises UsageError."""
    return bytes_of(os.environ.get(LIMIT) or DEFAULT_LIMIT, LIMIT)


def bytes_of(text: str, where: str) -> float:
    """A size as a person writes it ("20GB", "500 MB", "none" for no limit) in bytes. where: whose value it is.

    Raises UsageError.
    """
    if text.strip().casefold() == "none":
        return math.inf
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().casefold())
    if found is None:
        raise UsageError(f"'{text}' is no size", where=where, cure=f"{where}=20GB, or none for no limit")
    return float(found[1]) * _UNITS[found[2]]
