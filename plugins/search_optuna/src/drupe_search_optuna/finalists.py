"""Finalists: which of the trials that were measured briefly are worth a full measurement."""

from __future__ import annotations

from collections.abc import Sequence

from drupe_search_optuna.goals import Objective, by_distance, frontier
from drupe_search_optuna.trials import Trial


def candidates(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The trials that may be on the frontier, as far as brief measurements tell; the likeliest choice comes first.

    Left out is what is surely beyond a limit, or surely beaten. trials: as they were measured at first; those that were
    not cannot be compared with them.
    """
    fitting = [trial for trial in trials if trial.worked and all(each.least_excess(trial) <= 0 for each in objectives)]
    optimized = [each for each in objectives if each.optimized]
    costs = {trial.number: [each.costs(trial) for each in optimized] for trial in fitting}

    def is_beaten(trial: Trial) -> bool:
        own = costs[trial.number]
        return any(_surely_beats(costs[other.number], own) for other in fitting if other is not trial)

    kept = [trial for trial in fitting if not is_beaten(trial)]
    return by_distance(kept, frontier(fitting, objectives) or kept, objectives) if kept else []


def _surely_beats(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> bool:
    """Whether the worst of one trial's plausible costs are as good as the best of the other's, and one is better."""
    pairs = [(worst, best) for (_, worst), (best, _) in zip(one, other, strict=True)]
    return all(worst <= best for worst, best in pairs) and any(worst < best for worst, best in pairs)
