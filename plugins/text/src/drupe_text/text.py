"""Text: a reference to what models are calibrated with or evaluated on."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from drupe.api import UsageError
from drupe_text import hub, local, standard
from drupe_text.reference import Place, place_of

Purpose = Literal["calibration", "evaluation"]

LIMIT = 64 << 20
"""Characters of a text that are read: sixteen million tokens or so."""
SEPARATOR = "\n\n"
"""Stands between documents."""
SPLITS: dict[Purpose, tuple[str, ...]] = {
    "calibration": ("train", "validation", "test"),
    "evaluation": ("test", "validation", "train"),
}
"""Which split of a data set is taken where none is named, best first."""


@dataclass(frozen=True)
class Text:
    """What `reference` names; README.md lists what it may be. None: the text for the purpose that needs no file.

    purpose also says which split of a data set is taken, where the reference does not.
    """

    reference: str | None = None
    purpose: Purpose = "evaluation"

    @property
    def name(self) -> str:
        """What to call it in an error or a record."""
        if self.reference is not None:
            return self.reference
        return "the text that drupe brings" if self.purpose == "evaluation" else "Python's documentation and modules"

    @property
    def option(self) -> str:
        """The option that names it on the command line."""
        return f"--{self.purpose}-data"

    def read(self) -> str:
        """At most LIMIT characters. Raises UsageError for what cannot be read, or says nothing."""
        if self.reference is None:
            return standard.evaluation() if self.purpose == "evaluation" else standard.calibration()
        place = place_of(self.reference, self.option)
        return _read(place, self.purpose, local.state_of(place) if place.is_local else ())

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of what is read, whatever file it came from."""
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
    """Documents with an empty line between them, until LIMIT is reached; what holds no text is left out."""
    kept, length = [], 0
    for document in documents:
        if document.strip():
            kept.append(document)
            length += len(document) + len(SEPARATOR)
        if length >= LIMIT:
            break
    return SEPARATOR.join(kept)[:LIMIT]
