"""Measuring: which settings of the session are fastest for the package in a folder that may be written to."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from drupe.api import ExecutionProvider, Progress, RuntimeMissing, Target
from drupe_files import memory_shortage
from drupe_onnx.session_options import SessionSetting
from drupe_tune_session.bench import SessionBench
from drupe_tune_session.session_file import SessionFile
from drupe_tune_session.trying import Trial, Tuning, tune
from drupe_tune_session.tunable_settings import known_settings

SESSIONS = 2
"""How many sessions are open at a time."""


def refuse_too_large(folder: Path, target: Target) -> None:
    """Raise RuntimeMissing for a package of which two sessions do not fit into memory."""
    if shortage := memory_shortage([folder] * SESSIONS, target):
        needed, free = shortage
        raise RuntimeMissing(
            f"comparing two settings needs {needed} MiB of memory, and {free} MiB are free",
            where=folder,
            cure=f"on a machine with more memory: drupe tune-session {shlex.quote(str(folder))}",
        )


def measured(
    folder: Path,
    task: str | None,
    provider: ExecutionProvider,
    settings: list[SessionSetting],
    seconds: float,
    progress: Progress,
    stop: Callable[[], None] = lambda: None,
) -> tuple[Tuning, SessionFile]:
    """Try settings on the package, and leave it with those that were chosen.

    Raises the error of a package that cannot be opened, or run.
    """
    known = known_settings(provider) | {each.name: each for each in settings}
    file = SessionFile(folder, known)
    portable = {each.name: file.value(each.name) for each in settings}
    chosen = {}
    values = sum(len([value for value in each.values if value != portable[each.name]]) for each in settings)
    try:
        with (
            SessionBench(folder, provider.name, task, file) as bench,
            progress.task("tuning", values, "value") as shown,
        ):

            def tried(trial: Trial) -> None:
                shown.advance(1)

            tuning = tune(bench, settings, portable, seconds, tried=tried, stop=stop)
            chosen = dict(tuning.chosen)
    finally:
        file.write(chosen)
    return tuning, file
