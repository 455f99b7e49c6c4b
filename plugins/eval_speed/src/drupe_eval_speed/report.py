"""The report of `drupe benchmark`: tables for a person, a document for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from drupe.api import counted
from drupe_console import figure, size, table
from drupe_eval_speed.measuring import Measurement, Row, Subject
from drupe_eval_speed.settings import SpeedConfig
from drupe_timing import CONFIDENCE, ENOUGH, WITHIN, Case, Ratio, ratio_of, spread_of

BYTES = "bytes"
NOT_GIVEN = "not given"
"""In place of a value that a package's runtime does not give."""


def print_tables(measured: Measurement, config: SpeedConfig, notes: Sequence[str] = ()) -> None:
    """A table with the packages and each case, and notes."""
    names = _names(measured.subjects)
    head = [names[0], *(column for name in names[1:] for column in (name, f"{name} / {names[0]}"))]
    whole = [row for row in measured.rows if row.case is None]
    facts = [_in_columns(title, list(map(str, cells))) for title, cells in _facts(measured.subjects)]
    rows = [*facts, *map(_line, whole)]
    for case in measured.cases:
        rows += [[], [_title(case, measured.new_tokens)]]
        rows += [_line(row) for row in measured.rows if row.case == case]
    table(rows, ("", *head))
    print()
    for note in (_about(config), *measured.notes, *notes):
        print(f"note: {note}")


def _title(case: Case, new_tokens: int | None) -> str:
    """What is run in a case, in words."""
    if new_tokens is None:
        return case.label() or "sizes of the model"
    return f"{case.label('prompt')}, {counted(new_tokens, 'new token')}"


def print_document(measured: Measurement, config: SpeedConfig, notes: Sequence[str] = ()) -> None:
    """The whole measurement as JSON, with the values of each run."""
    document = {
        "packages": [_described(each) for each in measured.subjects],
        "settings": {**config.model_dump(mode="json"), "new_tokens": measured.new_tokens},
        "results": [_result(row) for row in measured.rows],
        "notes": [*measured.notes, *notes],
    }
    json.dump(document, sys.stdout, indent=1)
    print()


def _names(subjects: Sequence[Subject]) -> list[str]:
    """What the packages are called: the ends of their paths that tell them apart, and numbers where none does.

    An active adapter stands behind its package.
    """
    paths = [Path(each.path).resolve() for each in subjects]
    names = [
        _shortest(path, set(paths)) + (f" with {Path(each.adapter).name}" if each.adapter else "")
        for path, each in zip(paths, subjects, strict=True)
    ]
    return [
        f"{name} ({names[: at + 1].count(name)})" if names.count(name) > 1 else name for at, name in enumerate(names)
    ]


def _shortest(path: Path, paths: set[Path]) -> str:
    """The end of a path, as short as it can be and be that of no other one."""
    for count in range(1, len(path.parts)):
        end = path.parts[-count:]
        if sum(other.parts[-count:] == end for other in paths) == 1:
            return str(Path(*end))
    return str(path)


def _facts(subjects: Sequence[Subject]) -> Iterator[tuple[str, list[Any]]]:
    yield "task", [each.model.task for each in subjects]
    yield "provider", [each.provider for each in subjects]
    yield "runtime", [f"{each.runtime} {each.runtime_version}".strip() for each in subjects]
    yield "threads", [each.threads or "as the runtime decides" for each in subjects]


def _in_columns(title: str, cells: Sequence[str], ratios: Sequence[str] = ()) -> list[str]:
    """A line of a table: a cell for each package, and after each but the first its ratio to the first."""
    rest = zip(cells[1:], ratios or [""] * len(cells), strict=False)
    return [title, cells[0], *(cell for pair in rest for cell in pair)]


def _line(row: Row) -> list[str]:
    quantity = row.quantity
    title = quantity.title if quantity.unit == BYTES else f"{quantity.title} ({quantity.unit})"
    ratios = [_ratio_text(ratio) if ratio else "" for ratio in _ratios(row)]
    return _in_columns(title, [_value_text(values, quantity.unit) for values in row.values], ratios)


def _ratios(row: Row) -> list[Ratio | None]:
    """The ratio of each package but the first to the first; None where one of the two has no values."""
    base = row.values[0]
    return [ratio_of(values, base) if len(values) == len(base) > 0 else None for values in row.values[1:]]


def _value_text(values: Sequence[float], unit: str) -> str:
    if not values:
        return NOT_GIVEN
    shown = size if unit == BYTES else figure
    spread = spread_of(values)
    if len(values) == 1:
        return shown(spread.median)
    return f"{shown(spread.median)} ({shown(spread.low)} to {shown(spread.high)})"


def _ratio_text(ratio: Ratio) -> str:
    spread = ratio.spread
    if spread.low == spread.high:  # one value of each, such as bytes
        return f"{spread.median:.2f}"
    verdict = f", {WITHIN}" if ratio.verdict == WITHIN else ""
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f}){verdict}"


def _about(config: SpeedConfig) -> str:
    """How to read the table."""
    if config.runs < ENOUGH:
        runs = counted(config.runs, "run")
        return f"the median of {runs}, in brackets the lowest and the highest: too few to tell a difference from noise"
    return f"the median of {config.runs} runs in turn, in brackets where it lies with {CONFIDENCE:.0%} confidence"


def _described(subject: Subject) -> dict[str, Any]:
    return {
        "package": subject.path,
        "adapter": subject.adapter or None,
        "task": subject.model.task,
        "provider": subject.provider,
        "runtime": subject.runtime,
        "runtime_version": subject.runtime_version,
        "threads": subject.threads,
    }


def _result(row: Row) -> dict[str, Any]:
    quantity = row.quantity
    return {
        "metric": quantity.name,
        "unit": quantity.unit,
        "better": quantity.better,
        "case": row.case.by_name if row.case else None,
        "packages": [_summary(values) if values else None for values in row.values],
        "ratios_to_first": [_ratio_document(ratio) if ratio else None for ratio in _ratios(row)],
    }


def _summary(values: Sequence[float]) -> dict[str, Any]:
    spread = spread_of(values)
    return {"median": spread.median, "low": spread.low, "high": spread.high, "runs": list(values)}


def _ratio_document(ratio: Ratio) -> dict[str, Any]:
    spread = ratio.spread
    return {"median": spread.median, "low": spread.low, "high": spread.high, "verdict": ratio.verdict or "different"}
