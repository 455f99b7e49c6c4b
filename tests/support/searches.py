"""Searches in processes of their own: they are begun, watched and compared."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GRID = {"block_size": [32, 64], "symmetric": [True, False], "tokens": 32}


def started(
    folder: Path, checkpoint: Path, *arguments: str, environment: Mapping[str, str] | None = None, **changed: Any
) -> subprocess.Popen[str]:
    """A search with a grid of four trials. changed: keys of the workflow file; None leaves one out."""
    folder.mkdir(exist_ok=True)
    document = {"model": str(checkpoint), "options": GRID, "threads": 1, "search": {"sampler": "grid"}, **changed}
    document = {key: value for key, value in document.items() if value is not None}
    (folder / "workflow.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "drupe", "run", "workflow.json", "-o", "out", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read_until(search: subprocess.Popen[str], beginning: str) -> None:
    """Wait until a search has written a line that begins so."""
    assert search.stderr is not None
    told = ""
    while not (line := search.stderr.readline()).startswith(beginning):
        told += line
        assert search.poll() is None, told


def results(folder: Path) -> dict[str, Any]:
    """All of a study that does not depend on time."""
    study = json.loads((folder / "out.study" / "study.json").read_text())
    trials = [
        (each["number"], each["values"], each["metrics"]["kl_divergence"]["value"], each["plan"])
        for each in study["trials"]
    ]
    return {"trials": trials, "chosen": study["chosen"], "frontier": study["frontier"]}
