"""The cache: its folder on this platform, and the keys of what is kept in it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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
