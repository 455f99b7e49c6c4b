"""Trying settings one after the other. What is faster beyond the noise is kept, and compared once more at the end."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from drupe.api import DrupeError, Record
from drupe_onnx.session_options import SessionSetting
from drupe_timing import ENOUGH, WITHIN, Ratio, Spread, spread_of
from drupe_tune_session.session_file import Changes

FEW = 3
"""After so many rounds a value that does not look faster is given up."""
HOPELESS, AT_ONCE = 1.1, 2
"""A value that is so many times slower in each of the first rounds is given up at once."""
PROMISING = 0.98
"""The ratio of times below which a value looks faster."""
MOST = 9
"""Rounds of a comparison."""
OVERTIME = 0.3
"""The part of the time that the last comparison may take beyond it."""
FASTER, SLOWER, FAILED, UNTRIED = "faster", "slower", "failed", "not tried"
NO_TIME = "no time was left"


class Bench(Protocol):
    """What runs a package with changed settings. Each method raises DrupeError where that does not work."""

    def open(self, changes: Changes) -> None:
        """Open the package with these settings, unless it is open with them."""

    def close(self, changes: Changes) -> None:
        """Close it, if it is open with them."""

    def cost(self, changes: Changes) -> float:
        """The time of one run."""


class Trial(Record):
    """Settings that were compared with others. ratios: of the times, round by round. reason: why there are none."""

    changes: Changes
    against: Changes
    ratios: tuple[float, ...] = ()
    reason: str = ""

    @property
    def spread(self) -> Spread | None:
        return spread_of(self.ratios) if self.ratios else None

    @property
    def verdict(self) -> str:
        """FASTER, SLOWER, within the noise, FAILED or UNTRIED."""
        if self.spread is None:
            return UNTRIED if self.reason == NO_TIME else FAILED
        if _hopeless(self.ratios):
            return SLOWER
        if Ratio(self.spread).verdict:
            return WITHIN
        return FASTER if self.spread.median < 1 else SLOWER


class Tuning(Record):
    """What came of it. chosen: the changes that are kept. last: how they compare with the portable settings.

    milliseconds: of a run with the portable settings, by the median; None where nothing was compared.
    """

    chosen: Changes
    trials: tuple[Trial, ...]
    last: Trial | None
    seconds: float
    milliseconds: float | None


@dataclasses.dataclass
class _Search:
    """A search on its way."""

    bench: Bench
    limit: float
    stop: Callable[[], None]
    clock: Callable[[], float]
    begun: float = 0.0
    opening: float = 0.0
    running: float = 0.0
    costs: list[float] = dataclasses.field(default_factory=list)

    def open(self, changes: Changes) -> None:
        begun = self.clock()
        self.bench.open(changes)
        self.opening = self.clock() - begun

    def cost(self, changes: Changes) -> float:
        begun = self.clock()
        cost = self.bench.cost(changes)
        self.running = self.clock() - begun
        self.costs += [] if changes else [cost]
        return cost

    def left(self, until: float) -> float:
        return self.begun + until - self.clock()

    def compare(self, changes: Changes, against: Changes, until: float) -> Trial:
        """The two in turn, until it is clear which is faster, or the time is over."""
        ratios: list[float] = []
        try:
            self.open(against)
            self.open(changes)
            while len(ratios) < MOST and (not ratios or self.left(until) > 2 * self.running):
                self.stop()
                order = (changes, against) if len(ratios) % 2 else (against, changes)
                costs = {id(each): self.cost(each) for each in order}
                ratios.append(costs[id(changes)] / costs[id(against)])
                if _is_clear(ratios):
                    break
        except DrupeError as error:
            return Trial(changes, against, reason=error.what)
        return Trial(changes, against, tuple(ratios))


def tune(
    bench: Bench,
    settings: Sequence[SessionSetting],
    portable: Mapping[str, Any],
    seconds: float,
    *,
    tried: Callable[[Trial], None] = lambda trial: None,
    stop: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuning:
    """Find the fastest settings. portable: the values that the package has. tried: is told of each trial.

    Of one setting after the other, the fastest value is kept for the rest. At the end all that was kept is compared
    with the portable settings: of many values some look faster by chance. Raises the error of a package that cannot be
    run with its portable settings.
    """
    search = _Search(bench, seconds, stop, clock, clock())
    search.open({})
    search.cost({})
    best: dict[str, Any] = {}
    trials: list[Trial] = []
    for setting in settings:
        for value in setting.values:
            if value == best.get(setting.name, portable[setting.name]):
                continue
            changes = {**best, setting.name: value}
            if search.left(seconds) < search.opening + 2 * AT_ONCE * search.running:
                trial = Trial(changes, dict(best), reason=NO_TIME)
            else:
                trial = search.compare(changes, dict(best), seconds)
            trials.append(trial)
            tried(trial)
            bench.close(trial.against if trial.verdict == FASTER else changes)
            if trial.verdict == FASTER:
                best = changes
            elif trial.verdict == SLOWER and setting.ordered:
                break
    last = search.compare(best, {}, seconds * (1 + OVERTIME)) if best else None
    chosen = best if last is not None and last.verdict == FASTER else {}
    typical = statistics.median(search.costs) if trials else None
    return Tuning(chosen, tuple(trials), last, search.clock() - search.begun, typical)


def _is_clear(ratios: Sequence[float]) -> bool:
    """Whether more rounds would change nothing."""
    if _hopeless(ratios) or (len(ratios) >= FEW and statistics.median(ratios) > PROMISING):
        return True
    return len(ratios) >= ENOUGH and not Ratio(spread_of(ratios)).verdict


def _hopeless(ratios: Sequence[float]) -> bool:
    return len(ratios) >= AT_ONCE and min(ratios) > HOPELESS
