"""Goals: metrics of Olive as goals of a search of Drupe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from drupe.api import Record
from drupe_olive_compat.answers import Answer, changed, kept, left_out
from drupe_olive_compat.options import number

TEXT, ROWS = "text", "rows"
"""What a model gives: text, token by token, or something for each row."""
STATISTICS: Mapping[str, str] = {
    "avg": "mean", "min": "p50", "p50": "p50", "p75": "p90", "p90": "p90", "p95": "p99", "p99": "p99", "p999": "p99",
    "max": "p99",
}  # fmt: skip
"""The nearest statistic that Drupe gives of times."""
CLOSENESS: Mapping[str, str] = {TEXT: "kl_divergence", ROWS: "cosine_similarity"}
"""How close a package is to its source: in place of an accuracy, which is not measured."""


class Ranked(Record):
    """A metric of Olive and Drupe's for it. alike: whether a value of the one can be compared with the other's."""

    metric: str
    alike: bool = True


def ranked(kind: str, sub: str, gives: str) -> Ranked | None:
    """Drupe's metric for one of Olive's, by its type and sub type; None where there is none."""
    if kind == "latency" and sub in STATISTICS:
        return Ranked(f"{'inter_token' if gives == TEXT else 'run'}_{STATISTICS[sub]}")
    if kind == "throughput":
        return Ranked("decode_rate" if gives == TEXT else "row_rate")
    if kind == "size_on_disk":
        return Ranked("bytes")
    if kind == "accuracy" and sub == "perplexity" and gives == TEXT:
        return Ranked("perplexity")
    if kind == "accuracy":
        return Ranked(CLOSENESS[gives], alike=False)
    return None


def _difference(value: float) -> float | str:
    return value


def _percentage(value: float) -> float | str:
    return f"{value:g}%"


RELATIVE: Mapping[str, tuple[str, Callable[[float], float | str], str]] = {
    "min-improvement": ("min_better", _difference, "at least {} better"),
    "percent-min-improvement": ("min_better", _percentage, "at least {} better"),
    "max-degradation": ("max_worse", _difference, "at most {} worse"),
    "percent-max-degradation": ("max_worse", _percentage, "at most {} worse"),
}
"""Limits of Olive that are relative: the key of a goal, its value, and what it says."""
_FOR_ALL = "search.goals of the workflow that --save-plan writes has the limits"


def limit_of(goal: Mapping[str, Any], found: Ranked, is_lower: bool, place: str) -> tuple[dict[str, Any], Answer]:
    """The limit that a goal of Olive sets, as keys of a goal of Drupe, and the answer to it.

    is_lower: whether less of the metric is better.
    """
    kind = str(goal.get("type", ""))
    value: Any = goal.get("value")
    number(value, f"{place}.value")  # raises its error for anything else
    if not found.alike:
        return {}, left_out(f"a limit of an accuracy says nothing of {found.metric}", "limits in search.goals")
    if kind == "threshold":
        key, word = ("max", "most") if is_lower else ("min", "least")
        return {key: value}, kept(f"{found.metric} of at {word} {value:g}")
    if kind not in RELATIVE:
        return {}, left_out(f"there is no goal of the type '{kind}'")
    key, form, told = RELATIVE[kind]
    limit = form(value)
    what = f"{found.metric} {told.format(limit)} than in the first trial, where Olive means the input model"
    return {key: limit}, changed(what, _FOR_ALL)
