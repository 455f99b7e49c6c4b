"""Checkpoints of a run, from which it goes on after it was stopped. Only complete ones count."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from drupe.api import UsageError
from drupe_files import json_object

MARK, SETTINGS = "complete.json", "settings.json"
"""A file that is written when all others of a checkpoint are; and what the run is made with."""


def mark_complete(folder: Path) -> None:
    """Say that a checkpoint is whole, with the sizes of its files."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    part = folder / f"{MARK}.part"
    part.write_text(json.dumps(sizes), encoding="utf-8")
    part.replace(folder / MARK)


def last_complete(folder: Path) -> Path | None:
    """The last checkpoint whose files are all as they were written; others are removed."""
    steps = {path: path.name.rpartition("-")[2] for path in folder.glob("checkpoint-*")}
    for path in sorted((path for path, step in steps.items() if step.isdigit()), key=lambda each: -int(steps[each])):
        if _is_whole(path):
            return path
        shutil.rmtree(path)
    return None


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / MARK).read_bytes())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _settings_in(path: Path) -> dict[str, Any]:
    again = "--restart begins again, and removes the checkpoints of the earlier run"
    return json_object(path.read_bytes(), path.name, path, again)


def begin(folder: Path, settings: dict[str, Any]) -> None:
    """Take a folder for a run's checkpoints.

    Raises UsageError where it has those of a run with other settings, ModelError where its settings are damaged.
    """
    path = folder / SETTINGS
    text = json.dumps(settings, sort_keys=True, indent=1)
    if path.is_file() and path.read_bytes() != text.encode():
        before = _settings_in(path)
        differing = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
        raise UsageError(
            f"checkpoints of an earlier run with other settings are there; these differ: {', '.join(differing)}",
            where=folder,
            cure="--restart begins again, and removes them; the earlier settings go on from them",
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
