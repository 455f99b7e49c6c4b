"""The finisher of `tune-session`: measures the package that has been written, and writes what is fastest into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import Cancelled, DrupeError, Model, Notice, Run, RuntimeMissing, runtime_for
from drupe_files import folder_bytes
from drupe_timing import disturbance
from drupe_tune_session.measuring import measured, refuse_too_large
from drupe_tune_session.session_file import SessionFile
from drupe_tune_session.telling import ABOUT, document_of, notice_of
from drupe_tune_session.tunable_settings import settings_to_try
from drupe_tune_session.tune_session import TuneSessionConfig

WORTHWHILE = 32 << 20
"""Bytes of a package from which on it is tuned unasked: a smaller one runs in less time than a person notices."""
Answer = tuple[Mapping[str, Any], tuple[Notice, ...], Mapping[str, Any]]


def finish(package: Model, config: TuneSessionConfig, run: Run) -> Answer | None:
    """Tune the package in a folder. What was chosen becomes a part of the configuration."""
    if config.chosen is not None or not config.seconds or _is_not_worthwhile(package, config, run):
        return None
    target = run.context.target
    provider = run.found.provider(target.provider)
    settings = settings_to_try(provider, config)
    try:
        runtime_for(package, target, provider, run.found)
        if not settings:
            return None
        if config.when == "worthwhile":
            _refuse_disturbed()
        refuse_too_large(package.location, target)
        tuning, file = measured(
            package.location,
            package.task,
            provider,
            settings,
            config.seconds,
            run.context.progress,
            run.context.stop_if_cancelled,
        )
        if tuning.chosen and config.when == "worthwhile":
            _refuse_disturbed(file)
    except Cancelled:
        raise
    except Disturbed as disturbed:
        return _portable(disturbed.what, "when the machine is quiet: drupe tune-session OUT")
    except RuntimeMissing as missing:
        return _portable(missing.what, "on a machine that runs the package: drupe tune-session OUT")
    except DrupeError as error:  # the check, which comes after this, says it where the package does not run
        return _portable(error.what, error.cure or "")
    replaced = {name: file.value(name) for name in tuning.chosen}
    chosen = {"chosen": dict(tuning.chosen), **({"replaced": replaced} if replaced else {})}
    return chosen, (notice_of(tuning, replaced),), {"measured": document_of(tuning, replaced)}


class Disturbed(DrupeError):
    """Other programs keep the machine busy: what is fastest now is not what is fastest when it is quiet."""


def _refuse_disturbed(file: SessionFile | None = None) -> None:
    """Raise Disturbed where the machine is busy. file: gets the portable settings back."""
    if (told := disturbance()) is not None:
        if file is not None:
            file.write({})
        raise Disturbed(told)


def _is_not_worthwhile(package: Model, config: TuneSessionConfig, run: Run) -> bool:
    if config.when == "always":
        return False
    return not run.job.plan.check.run or folder_bytes(package.location) < WORTHWHILE


def _portable(why: str, cure: str) -> Answer:
    """The portable settings are the choice, also where the run is repeated."""
    return {"chosen": {}}, (Notice(ABOUT, "portable", f"nothing was measured: {why}", cure),), {}
