"""Text: a reference to a text that models are calibrated with or evaluated on."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from typing import Literal

from drupe.api import Record, UsageError
from drupe_text import builtin_texts, hub, local
from drupe_text.reference import Place, place_of

Purpose = Literal["calibration", "evaluation"]

LIMIT = 64 << 20
"""The most characters of a text that are read: some sixteen million tokens."""
SEPARATOR = "\n\n"
"""Separates documents."""
SPLITS: dict[Purpose, tuple[str, ...]] = {
    "calibration": ("train", "validation", "test"),
    "evaluation": ("test", "validation", "train"),
}
"""The splits of a data set that are tried where none is named, in this order."""


class Text(Record):
    """The text that `reference` names; README.md lists the possible references. None: the built-in text.

    purpose: chooses the built-in text, and the split of a data set where the reference names none.
    """

    reference: str | None = None
    purpose: Purpose = "evaluation"

    @property
    def name(self) -> str:
        """What to call it in an error or a record."""
        if self.reference is not None:
            return self.reference
        return "drupe's built-in text" if self.purpose == "evaluation" else "Python's documentation and modules"

    @property
    def option(self) -> str:
        """The option that names it on the command line."""
        return f"--{self.purpose}-data"

    def read(self) -> str:
        """At most LIMIT characters of the text. Raises UsageError for a text that cannot be read or is empty."""
        if self.reference is None:
            return builtin_texts.evaluation() if self.purpose == "evaluation" else builtin_texts.calibration()
        place = place_of(self.reference, self.option)
        return _read(place, self.purpose, local.state_of(place) if place.is_local else ())

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the text that is read; it does not depend on the file's name."""
        return hashlib.sha256(self.read().encode("utf-8", "surrogatepass")).hexdigest()


@functools.lru_cache(maxsize=2)
def _read(place: Place, purpose: Purpose, state: tuple[object, ...]) -> str:
    """The documents of a place in one text. state: changes when its files do."""
    documents = local.documents if place.is_local else hub.documents
    text = _joined(documents(place, SPLITS[purpose], LIMIT))
    if not text.strip():
        raise UsageError("the text is empty", where=place.name, cure=f"another --{purpose}-data")
    return text


def _joined(documents: Iterable[str]) -> str:
    """Documents with an empty line between them, until LIMIT is reached; empty documents are left out."""
    kept, length = [], 0
    for document in documents:
        if document.strip():
            kept.append(document)
            length += len(document) + len(SEPARATOR)
        if length >= LIMIT:
            break
    return SEPARATOR.join(kept)[:LIMIT]
