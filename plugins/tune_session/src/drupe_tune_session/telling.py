"""What is said and recorded of a tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import Notice, counted
from drupe_tune_session.session_file import Changes
from drupe_tune_session.trying import FAILED, FASTER, PROMISING, UNTRIED, Trial, Tuning

ABOUT = "session settings"


def words_of(changes: Changes) -> str:
    """Settings with their values, for a person."""
    return ", ".join(f"{name} {_word(value)}" for name, value in changes.items()) or "the portable settings"


def _word(value: Any) -> str:
    if value is None:
        return "open"
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def gain_of(trial: Trial) -> str:
    """How many times as fast the settings are as what they were compared with."""
    spread = trial.spread
    assert spread is not None
    return f"{1 / spread.median:.2f} times as fast ({1 / spread.high:.2f} to {1 / spread.low:.2f})"


def document_of(tuning: Tuning, replaced: Mapping[str, Any]) -> dict[str, Any]:
    """A tuning as JSON. Ratios are of times: below 1 is faster."""
    return {
        "chosen": dict(tuning.chosen),
        "replaced": dict(replaced),
        "against_portable": None if tuning.last is None else _trial(tuning.last),
        "trials": [_trial(each) for each in tuning.trials],
        "portable_milliseconds": None if tuning.milliseconds is None else round(tuning.milliseconds, 3),
        "seconds": round(tuning.seconds, 2),
    }


def _trial(trial: Trial) -> dict[str, Any]:
    spread = trial.spread
    ratio = None if spread is None else {
        "median": round(spread.median, 4), "low": round(spread.low, 4), "high": round(spread.high, 4)
    }  # fmt: skip
    return {
        "changes": dict(trial.changes),
        "against": dict(trial.against),
        "verdict": trial.verdict,
        "ratio": ratio,
        "rounds": len(trial.ratios),
        "reason": trial.reason,
    }


def outcome_of(tuning: Tuning, replaced: Mapping[str, Any]) -> tuple[str, str]:
    """In a word and in a sentence, what came of it."""
    took = f"{tuning.seconds:.0f} s" if tuning.seconds >= 1 else f"{tuning.seconds:.1f} s"
    if tuning.chosen and tuning.last is not None:
        told = f"{words_of(tuning.chosen)} in place of {words_of(replaced)}: {gain_of(tuning.last)}"
        return "tuned", f"{told}, measured in {took}"
    compared = [each for each in tuning.trials if each.verdict != UNTRIED]
    left = len(tuning.trials) - len(compared)
    if not compared:
        return "portable", f"{took} were not enough to compare a setting with the portable ones"
    more = f"; there was no time for {left} more" if left else ""
    if _is_unsure(tuning):
        why = "there was no time to make sure of what looked faster"
    elif any(each.verdict == FASTER for each in compared):
        why = "what looked faster was not when all was compared once more"
    else:
        why = "no other value is faster beyond the noise"
    return "portable", f"{counted(len(compared), 'value')} tried in {took}, and {why}{more}"


def notice_of(tuning: Tuning, replaced: Mapping[str, Any]) -> Notice:
    """What came of it, for the user."""
    handling, what = outcome_of(tuning, replaced)
    cure = "drupe tune-session OUT --seconds 60 takes longer" if _short_of_time(tuning) else ""
    return Notice(ABOUT, handling, what, cure)


def _short_of_time(tuning: Tuning) -> bool:
    return _is_unsure(tuning) or any(each.verdict == UNTRIED for each in tuning.trials)


def _is_unsure(tuning: Tuning) -> bool:
    """Whether something looked faster, and had too few rounds for that to be sure."""
    compared = [*tuning.trials, *([tuning.last] if tuning.last is not None else [])]
    spreads = [each.spread for each in compared if each.spread is not None]
    return any(not spread.sure and spread.median < PROMISING for spread in spreads)


def rows_of(tuning: Tuning) -> list[tuple[str, str, str, str]]:
    """A row for each trial: what was tried, against what, the ratio of the times with its spread, and the verdict."""
    trials = [*tuning.trials, *([tuning.last] if tuning.last is not None else [])]
    return [(words_of(each.changes), words_of(each.against), _spread(each), _verdict(each)) for each in trials]


def _spread(trial: Trial) -> str:
    spread = trial.spread
    return "" if spread is None else f"{spread.median:.3f} ({spread.low:.3f} to {spread.high:.3f})"


def _verdict(trial: Trial) -> str:
    return f"{trial.verdict}: {trial.reason}" if trial.verdict in (FAILED, UNTRIED) else trial.verdict
