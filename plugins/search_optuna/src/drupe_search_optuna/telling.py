"""Telling: trials and frontiers in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drupe_console import figure, size, table_lines
from drupe_search_optuna.goals import Objective
from drupe_search_optuna.spaces import Parameter, plain
from drupe_search_optuna.trials import Trial


def told_of(trial: Trial, parameters: Sequence[Parameter], objectives: Sequence[Objective]) -> str:
    """A trial in one line: its values and its metrics, or why it has none."""
    values = values_of(trial.values, parameters)
    if not trial.worked:
        return f"{values}: failed: {trial.reason}"
    metrics = ", ".join(f"{each.metric} {measured(trial, each)}" for each in objectives)
    beyond = [each.metric for each in objectives if each.excess(trial) > 0]
    over = [each.metric for each in objectives if "taken over" in trial.metrics[each.metric].detail]
    limit = f" (beyond the limit of {beyond[0]})" if beyond else ""
    equal = f" ({', '.join(over)}: of an earlier trial, whose graph is equal)" if over else ""
    return f"{values}: {metrics}{limit}{equal}"


def values_of(values: Mapping[str, Any], parameters: Sequence[Parameter]) -> str:
    """Values with the keys that they belong to."""
    return ", ".join(f"{each.short} {plain(values[each.name])}" for each in parameters)


def told_of_time(seconds: float, made: int, most: int | None, done: int) -> str:
    """How long the rest takes, where that is known; empty for the first and the last trial."""
    if most is None or made < 2 or done >= most:
        return ""
    left = seconds / made * (most - done)
    return f"; about {left / 60:.0f} min left" if left >= 90 else f"; about {left:.0f} s left"


def measured(trial: Trial, objective: Objective) -> str:
    """A metric with its unit."""
    value = trial.metrics[objective.metric].value
    if objective.unit == "bytes":
        return size(int(value))
    return f"{figure(value)} {objective.unit}".rstrip()


def frontier_table(
    best: Sequence[Trial],
    chosen: Trial,
    left_brief: Sequence[Trial],
    parameters: Sequence[Parameter],
    objectives: Sequence[Objective],
) -> list[str]:
    """A row for each trial of the frontier, and for each one that may belong to it; the chosen one is marked."""
    head = ["trial", *(each.short for each in parameters), *(each.metric for each in objectives)]
    rows = [
        [
            f"{trial.number}{' *' if trial is chosen else '' if trial.in_full else ' ~'}",
            *(plain(trial.values[each.name]) for each in parameters),
            *(measured(trial, each) for each in objectives),
        ]
        for trial in (*best, *left_brief)
    ]
    lines = [*(f"  {line}" for line in table_lines(rows, head)), "  * chosen: nearest to the best of every goal"]
    if left_brief:
        lines.append("  ~ measured briefly only, and perhaps beaten; a larger number in search.finalists measures more")
    return lines
