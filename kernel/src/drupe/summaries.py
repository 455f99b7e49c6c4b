"""What the program's commands are called and do: kept between runs, for finding all plugins takes most of a start."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any

from drupe.cache import cache_folder


def summaries() -> dict[str, str]:
    """Name and summary of every command; kept for as long as nothing is installed, removed or changed."""
    note = cache_folder() / "commands" / f"{zlib.crc32(sys.prefix.encode()):08x}.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        kept = json.loads(note.read_text("utf-8"))
        if kept["state"] == _state(kept["files"]):
            return dict(kept["summaries"])
    from drupe.plugins import registry

    commands = registry().commands.claims
    found = {name: claims[0].ref.summary for name, claims in sorted(commands.items())}
    files = sorted(str(getattr(plugin, "__file__", "")) for plugin in registry().manager.get_plugins())
    if registry().broken:  # which may be mended without a trace here
        return found
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        making = note.with_suffix(f".{os.getpid()}")
        making.write_text(json.dumps({"state": _state(files), "files": files, "summaries": found}), "utf-8")
        making.replace(note)
    return found


def _state(files: list[str]) -> list[Any]:
    """All that decides which plugins there are: the folders that they are looked for in, and their own files."""
    looked_at = [*sys.path, *files]
    return [sys.version, os.environ.get("DRUPE_PLUGINS"), [[path, _changed(path)] for path in looked_at]]


def _changed(path: str) -> int:
    with contextlib.suppress(OSError):
        return Path(path or ".").stat().st_mtime_ns
    return 0
