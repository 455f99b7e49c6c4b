"""Cache: a content-addressed store of what costly passes have made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
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


class Cache:
    """Folders by key. One appears whole or not at all, so a killed process leaves nothing half made."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder()) / "passes"

    def find(self, key: str) -> Path | None:
        """The folder kept under `key`."""
        found = self.folder / key
        return found if found.is_dir() else None

    def drop(self, key: str) -> None:
        """Forget what is kept under `key`."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def keep(self, key: str, fill: Callable[[Path], None]) -> Path:
        """Let `fill` write into a new folder and keep it under `key`; what fails is not kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        making = self.folder / f".{key[:16]}-{uuid.uuid4().hex}"
        making.mkdir()
        try:
            fill(making)
            try:
                making.rename(self.folder / key)
            except OSError:
                if self.find(key) is None:  # not merely made by another process in the meantime
                    raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return self.folder / key
