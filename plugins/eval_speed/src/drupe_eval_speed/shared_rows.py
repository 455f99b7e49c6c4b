"""Shared rows: what was measured of a package, taken over for another one that is as fast, in the shared folder.

How fast a package is depends on its graph and on the settings of its session, not on the values of its weights. A brief
measurement is therefore taken over from a package that differs only in these values. A full one is taken over only from
the same package, for another evaluator.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from drupe.api import RECORD, Model, Record, replace
from drupe_eval_speed.measuring import Measurement, Row
from drupe_eval_speed.quantities import QUANTITIES
from drupe_eval_speed.settings import SpeedConfig
from drupe_files import key_of, shared_folder
from drupe_files.whole_files import whole_file
from drupe_timing import Case

WEIGHTS = ".data"
"""How the names of files end that hold values of weights only."""


class Rows(Record):
    """Rows of one package. taken_over: whether they were measured before. several: whether there are several cases."""

    rows: Sequence[Row]
    several: bool
    taken_over: bool = False


def rows_of(models: Sequence[Model], config: SpeedConfig, loads: int, measure: Callable[[], Measurement]) -> list[Rows]:
    """The rows of each package: taken over from an earlier measurement, if there is one of all, or measured now.

    loads: how often loading is timed. measure: of all packages in turn.
    """
    files = [_file(each.location, config, loads) for each in models]
    if all(file is not None and file.is_file() for file in files):
        return [_read(file) for file in files if file is not None]
    found = _rows(measure(), len(models))
    for file, rows in zip(files, found, strict=True):
        if file is not None:
            with whole_file(file) as draft:
                draft.write_text(json.dumps(_document(rows)), encoding="utf-8")
    return found


def _file(location: Path, config: SpeedConfig, loads: int) -> Path | None:
    """Where the rows of a package are shared; None where they are not."""
    folder, alike = shared_folder(), _alike(location, config.brief)
    if folder is None or alike is None:
        return None
    return folder / f"speed-{key_of({'files': alike, 'config': config.model_dump(mode='json'), 'loads': loads})}.json"


def _alike(location: Path, brief: bool) -> dict[str, str] | None:
    """The digests of the files that decide how fast a package is; None for a package without a record."""
    try:
        files = json.loads((location / RECORD).read_text(encoding="utf-8"))["files"]
        return {name: file["sha256"] for name, file in files.items() if not (brief and name.endswith(WEIGHTS))}
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _rows(measured: Measurement, count: int) -> list[Rows]:
    """The rows of each of the packages, `count` of them, that were measured in turn."""
    several = len(measured.cases) > 1
    return [
        Rows([replace(row, values=(row.values[at],)) for row in measured.rows if row.values[at]], several)
        for at in range(count)
    ]


def _document(found: Rows) -> dict[str, object]:
    rows = [[row.quantity.name, row.case and row.case.sizes, row.values] for row in found.rows]
    return {"several": found.several, "rows": rows}


def _read(file: Path) -> Rows:
    document = json.loads(file.read_text(encoding="utf-8"))
    rows = [
        Row(
            QUANTITIES[name],
            None if sizes is None else Case(tuple((axis, size) for axis, size in sizes)),
            tuple(map(tuple, values)),
        )
        for name, sizes, values in document["rows"]
    ]
    return Rows(rows, document["several"], taken_over=True)
