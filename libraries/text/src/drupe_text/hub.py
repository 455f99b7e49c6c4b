"""Documents of a data set of the Hugging Face hub, through the library `datasets`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from drupe.api import UsageError
from drupe_text.folders import choose
from drupe_text.reference import Place
from drupe_text.row_fields import field_of, is_empty

QUIET = {"HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Environment variables that stop the library from reporting its use, unless the user has set them."""


def documents(place: Place, splits: Sequence[str], limit: int) -> Iterator[str]:
    """The texts of a data set, row after row. Rows are loaded only as far as the caller iterates."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            f"'{place.name}' is not a file, and the library for the hub's data sets is not installed",
            cure="pip install 'drupe-text[datasets]', or give an existing file",
        ) from error
    rows = iter(_loaded(datasets, place, splits))
    found: str | None = None
    while (row := _next(rows, place)) is not None:
        if not is_empty(row, found or place.field):
            found = found or field_of(row, place.field, place.name)
            yield row[found]


def _loaded(datasets: Any, place: Place, splits: Sequence[str]) -> Any:
    """The rows of one split. Offline, `datasets` cannot stream: it finds only data sets that are kept whole."""
    streaming = not datasets.config.HF_DATASETS_OFFLINE
    try:
        by_split = datasets.load_dataset(place.name, place.configuration, streaming=streaming)
    except Exception as error:  # the library documents no class of errors; those of network and hub come through
        raise _refused(place, error) from error
    return by_split[choose(list(by_split), place.split, splits, place.name)]


def _next(rows: Iterator[Any], place: Place) -> Any:
    try:
        return next(rows, None)
    except Exception as error:  # as above: streaming reads the network here
        raise _refused(place, error) from error


def _refused(place: Place, error: Exception) -> UsageError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UsageError(
        f"the data set cannot be loaded: {reason}",
        where=f"the hub's data set '{place.name}'",
        cure="check id, configuration (OWNER/NAME:CONFIGURATION) and network, or give a file",
    )
