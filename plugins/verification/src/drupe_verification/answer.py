"""The answer of an evaluator: metrics with names and finite numbers, or an error that says what is wrong with it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from drupe.api import Evaluator, Metric, replace


def metrics_of(evaluator: Evaluator, *measured: Any) -> tuple[Metric, ...]:
    """What an evaluator gives, with values that are Python's own numbers.

    Raises TypeError where that is not a list of metrics with names and numbers, and ValueError where two have one name,
    or a value is NaN or infinite: no limit refuses a NaN, and JSON has no form for either.
    """
    given = evaluator.evaluate(*measured)
    metrics = tuple(given) if isinstance(given, Iterable) else (given,)
    if strange := [each for each in metrics if not isinstance(each, Metric)]:
        raise TypeError(f"it gave {strange[0]!r}, which is not a Metric")
    for each in metrics:
        if wrong := _wrong_with(each):
            raise TypeError(f"it gave {each!r}, whose {wrong}")
    if twice := [name for name, count in Counter(each.name for each in metrics).items() if count > 1]:
        raise ValueError(f"it gave '{twice[0]}' twice")
    metrics = tuple(replace(each, value=float(each.value)) for each in metrics)
    if unbounded := [each for each in metrics if not math.isfinite(each.value)]:
        raise ValueError(f"it gave {unbounded[0].value} for '{unbounded[0].name}', which is not a finite number")
    return metrics


def _wrong_with(metric: Metric) -> str | None:
    """What is wrong with the fields of a metric; numpy's numbers are as good as Python's."""
    if not isinstance(metric.name, str) or not metric.name:
        return "name is no text"
    if isinstance(metric.value, str) or not hasattr(metric.value, "__float__"):
        return "value is no number"
    if not isinstance(metric.unit, str):
        return "unit is no text"
    if metric.spread is not None and not _is_range(metric.spread):
        return "spread is no pair of finite numbers, the lower one first"
    if metric.better not in ("lower", "higher"):
        return "better is neither 'lower' nor 'higher'"
    return None if _fits_json(metric.detail) else "detail is no mapping of names to what JSON has a form for"


def _fits_json(detail: Any) -> bool:
    try:
        return isinstance(json.loads(json.dumps(detail)), dict)
    except (TypeError, ValueError, RecursionError):
        return False


def _is_range(spread: object) -> bool:
    """Whether this is a pair of finite numbers in order."""
    if not isinstance(spread, tuple | list) or len(spread) != 2:
        return False
    try:
        low, high = map(float, spread)
    except (TypeError, ValueError):
        return False
    return -math.inf < low <= high < math.inf
