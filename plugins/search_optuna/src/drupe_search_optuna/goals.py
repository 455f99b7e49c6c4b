"""Goals: which trials keep to the limits, which of them no other one beats, and which one is taken."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from drupe.api import Metric, Record, UsageError, registry, unknown
from drupe_functions import know
from drupe_search_optuna.settings import Goal, SearchSettings, difference
from drupe_search_optuna.trials import OWN_UNITS, Trial

REPEATED = 0.05
"""How far apart brief measurements of one package may be, beyond their spreads. On a quiet machine, two processes that
run the same package are up to 2 % apart (docs/measuring.md)."""
ALIKE = 0.8
"""How much two names must have in common for one to be taken for the other, misspelt: 1 for equal names."""


class Objective(Record):
    """A metric with its direction, its accepted range, and whether it is optimized."""

    metric: str
    unit: str
    sign: int
    low: float | None
    high: float | None
    optimized: bool

    def cost(self, trial: Trial) -> float:
        """The metric as a number of which less is better."""
        return self.sign * trial.metrics[self.metric].value

    def costs(self, trial: Trial) -> tuple[float, float]:
        """The least and the greatest cost that the metric of a brief measurement makes plausible."""
        metric = trial.metrics[self.metric]
        if metric.spread is None:
            return self.cost(trial), self.cost(trial)
        costs = [self.sign * each for each in (*metric.spread, metric.value)]
        return min(costs) - abs(min(costs)) * REPEATED, max(costs) + abs(max(costs)) * REPEATED

    def excess(self, trial: Trial) -> float:
        """How far the metric is beyond the accepted range; 0 or less inside of it."""
        return self._excess(trial.metrics[self.metric].value)

    def least_excess(self, trial: Trial) -> float:
        """As `excess`, for the most favourable of the values that a brief measurement makes plausible."""
        low, high = sorted(self.sign * cost for cost in self.costs(trial))
        if any(edge is not None and low <= edge <= high for edge in (self.low, self.high)):
            return 0.0
        return min(self._excess(low), self._excess(high))

    def _excess(self, value: float) -> float:
        beyond = [self.low - value] if self.low is not None else []
        beyond += [value - self.high] if self.high is not None else []
        return max(beyond, default=0.0)

    @property
    def limits(self) -> str:
        """The accepted range in words; empty where there is none."""
        low = [] if self.low is None else [f"at least {self.low:.6g}"]
        return " and ".join(low if self.high is None else [*low, f"at most {self.high:.6g}"])


def refuse_unmeasured_goals(settings: SearchSettings) -> None:
    """Raise UsageError, before any trial, for a goal that no evaluator of the search gives, whatever the model's task.

    Some evaluators do not say beforehand what they measure. With one of those, a goal is refused only if its name is
    nearly that of a metric that is known.
    """
    found = registry()
    for name in settings.evaluators:
        know(name, found)
    own = [task.evaluator for task in (found.tasks.make(entry.ref.name) for entry in found.tasks) if task.evaluator]
    names = dict.fromkeys([*settings.evaluators, *(name for name in own if name in found.evaluators)])
    measured = [found.evaluators.make(name).metrics for name in names]
    known = [*OWN_UNITS, *(metric for metrics in measured for metric in metrics)]
    for at, goal in enumerate(settings.goals):
        name = re.split(r"[:\[]", goal.metric)[0]  # behind it stands a case, or an output of the model
        if name not in known and (all(measured) or difflib.get_close_matches(name, known, 1, ALIKE)):
            raise _unknown(goal.metric, known, f"search.goals.{at}")


def _unknown(metric: str, known: Iterable[str], where: str) -> UsageError:
    return unknown(
        "metric", metric, known, where=f"{where}.metric",
        cure=f"there are {', '.join(known)}; name others' evaluators under search.evaluators",
    )  # fmt: skip


def objectives_of(goals: Sequence[Goal], first: Trial) -> list[Objective]:
    """The goals with what the first trial tells: directions, units, and what relative limits mean.

    Raises UsageError for a metric that nothing measures, and for a search that optimizes nothing.
    """
    found = [
        _objective(goal, first.metrics, f"search.goals.{at}")
        for at, goal in enumerate(goals or [Goal(metric=name) for name in ("bytes", *first.main)])
    ]
    if not any(each.optimized for each in found):
        raise UsageError(
            "no goal is optimized", where="search.goals", cure="leave `optimize: false` out of one of them"
        )
    return found


def _objective(goal: Goal, metrics: Mapping[str, Metric], where: str) -> Objective:
    if goal.metric not in metrics:
        raise _unknown(goal.metric, metrics, where)
    metric = metrics[goal.metric]
    lower = (goal.better or metric.better) == "lower"
    low, high = goal.min, goal.max
    for limit, worse in ((goal.max_worse, True), (goal.min_better, False)):
        if limit is None:
            continue
        distance = difference(limit, metric.value, where)
        edge = metric.value + distance * (1 if worse == lower else -1)
        if lower:
            high = edge if high is None else min(high, edge)
        else:
            low = edge if low is None else max(low, edge)
    if low is not None and high is not None and low > high:
        raise UsageError(f"no value is accepted: at least {low:g} and at most {high:g}", where=where)
    return Objective(goal.metric, metric.unit, 1 if lower else -1, low, high, goal.optimize)


def unmeasured_goal(trial: Trial, objectives: Iterable[Objective]) -> str:
    """Which goal a trial has no number for, in words; empty where it has one for each."""
    return next((f"{each.metric} was not measured" for each in objectives if each.metric not in trial.metrics), "")


def keeps_limits(trial: Trial, objectives: Iterable[Objective]) -> bool:
    return trial.worked and all(each.excess(trial) <= 0 for each in objectives)


def frontier(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The trials within the limits that no other such trial beats: as good everywhere, and better in one goal."""
    optimized = [each for each in objectives if each.optimized]
    fitting = [trial for trial in trials if keeps_limits(trial, objectives)]
    costs = {trial.number: [each.cost(trial) for each in optimized] for trial in fitting}
    kept: list[Trial] = []
    for trial in sorted(fitting, key=lambda trial: costs[trial.number]):  # what beats a trial comes before it
        own = costs[trial.number]
        if not any(all(a <= b for a, b in zip(costs[other.number], own, strict=True)) for other in kept):
            kept.append(trial)
    return kept


def choose(best: Sequence[Trial], objectives: Sequence[Objective]) -> Trial:
    """Of a frontier the trial that is nearest to the best value of every goal, each scaled to the frontier's range."""
    return by_distance(best, best, objectives)[0]


def by_distance(trials: Iterable[Trial], best: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Trials, those first that are nearest to the best value of every goal. best: the frontier, whose range counts."""
    optimized = [each for each in objectives if each.optimized]
    ranges = [(min(costs), max(costs)) for each in optimized for costs in [[each.cost(trial) for trial in best]]]

    def distance(trial: Trial) -> float:
        return sum(
            ((each.cost(trial) - low) / (high - low)) ** 2 if high > low else 0.0
            for each, (low, high) in zip(optimized, ranges, strict=True)
        )

    return sorted(trials, key=distance)


def nearest_miss(trials: Iterable[Trial], objectives: Sequence[Objective]) -> tuple[Trial, Objective] | None:
    """Where no trial keeps to the limits: the one that is least beyond, relative to the limit, and the limit."""
    misses = [
        (each.excess(trial) / max(abs(each.low or 0), abs(each.high or 0), 1e-12), trial, each)
        for trial in trials
        if trial.worked
        for each in [max(objectives, key=lambda objective: objective.excess(trial))]
    ]
    return min(misses, key=lambda miss: miss[0])[1:] if misses else None
