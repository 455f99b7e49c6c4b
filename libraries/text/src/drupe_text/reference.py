"""Place: a parsed reference to a text: a path or a data set of the hub, with split and field."""

from __future__ import annotations

import re
from pathlib import Path

from drupe.api import Record, UsageError

HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?::(?P<configuration>[\w.-]+))?")
BEHIND = re.compile(r"(?P<name>.+?)(?:@(?P<split>[\w.-]+))?(?:#(?P<field>[^#/\\]+))?")
LOOKS_LIKE_A_PATH = re.compile(r"[./~\\]|.*[/\\].*[/\\]|.*\.(txt|md|json|jsonl|parquet|csv)$")


class Place(Record):
    """Where documents are. name: a path, or a data set's id. configuration, split, field: None where not given."""

    name: str
    is_local: bool
    configuration: str | None = None
    split: str | None = None
    field: str | None = None

    @property
    def path(self) -> Path:
        return Path(self.name)


def place_of(reference: str, option: str) -> Place:
    """Parse NAME[:CONFIGURATION][@SPLIT][#FIELD]. The path of an existing file may contain these marks itself.

    option: the option that the reference was given with; an error names it.
    """
    if (place := local_place(reference)) is not None:
        return place
    parts = BEHIND.fullmatch(reference)
    name, split, field = parts.group("name", "split", "field") if parts else (reference, None, None)
    found = HUB.fullmatch(name)
    if found is None or LOOKS_LIKE_A_PATH.match(name):
        raise UsageError(
            f"the text cannot be read: there is no file or folder '{name}'",
            cure=f"{option} FILE, FOLDER, or OWNER/NAME of a data set of the hub",
        )
    return Place(found["name"], False, found["configuration"], split, field)


def local_place(reference: str) -> Place | None:
    """The place on this machine that a reference names; None where nothing is there."""
    if _exists(reference):
        return Place(reference, True)
    parts = BEHIND.fullmatch(reference)
    if parts is None or not _exists(parts["name"]):
        return None
    return Place(parts["name"], True, None, parts["split"], parts["field"])


def absolute(reference: str) -> str:
    """A reference with an absolute path where it names a file; any other reference unchanged."""
    place = local_place(reference)
    return f"{Path(place.name).absolute()}{reference[len(place.name) :]}" if place else reference


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # not a possible file name
        return False
