"""Documents of a data set of the Hugging Face hub, through the library `datasets`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from drupe.api import UsageError
from drupe_text.folders import choose
from drupe_text.hub_datasets import library, load, refused
from drupe_text.reference import Place
from drupe_text.row_fields import field_of, is_empty


def documents(place: Place, splits: Sequence[str], limit: int) -> Iterator[str]:
    """The texts of a data set, row after row. Rows are loaded only as far as the caller iterates."""
    missing = UsageError(
        f"'{place.name}' is not a file, and the library for the hub's data sets is not installed",
        cure="pip install 'drupe-text[datasets]', or give an existing file",
    )
    by_split = load(library(missing), place.name, place.configuration, streaming=True)
    rows = iter(by_split[choose(list(by_split), place.split, splits, place.name)])
    found: str | None = None
    while (row := _next(rows, place)) is not None:
        if not is_empty(row, found or place.field):
            found = found or field_of(row, place.field, place.name)
            yield row[found]


def _next(rows: Iterator[Any], place: Place) -> Any:
    try:
        return next(rows, None)
    except Exception as error:  # the library documents no class of errors; streaming reads the network here
        raise refused(place.name, error) from error
