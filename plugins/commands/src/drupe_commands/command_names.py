"""What the program's commands are called and do: kept between runs, for finding all plugins takes most of a start."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

from drupe.api import ALLOW_LIST
from drupe_files import cache_folder, leave_note


def summaries() -> dict[str, str]:
    """Name and summary of every command; kept for as long as nothing is installed, removed or changed."""
    state = [sys.version, os.environ.get(ALLOW_LIST), _changes(sys.path)]
    note = cache_folder() / "commands" / f"{zlib.crc32(os.fsencode(sys.prefix)):08x}.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        kept = json.loads(note.read_text("utf-8"))
        if kept["state"] == state and kept["files"] == _changes(kept["files"]):
            return dict(kept["summaries"])
    from drupe.api import registry

    found = {entry.ref.name: entry.ref.summary for entry in registry().commands}
    if not any(plugin.notes or (plugin.reason and not plugin.left_out) for plugin in registry().plugins):
        # What is wrong may be mended without a trace in what is looked at here, and is told each time.
        files = _changes(str(getattr(plugin, "__file__", "")) for plugin in registry().manager.get_plugins())
        leave_note(note, json.dumps({"state": state, "files": files, "summaries": found}))
    return found


def _changes(paths: Iterable[str]) -> dict[str, int]:
    """When each file or folder was last changed, in nanoseconds; 0 for what is not there."""
    found = dict.fromkeys(paths, 0)
    for path in found:
        with contextlib.suppress(OSError):
            found[path] = Path(path).stat().st_mtime_ns
    return found
