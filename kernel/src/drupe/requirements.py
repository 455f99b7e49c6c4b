"""Requirements: what a distribution requires and what of it is installed."""

from __future__ import annotations

import contextlib
from importlib import metadata
from typing import Any


def lacking(distribution: str) -> list[str]:
    """What a distribution, or what it requires, requires and is not installed in a version that fits; as pip takes it.

    A requirement that cannot be read is left out.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    missing: dict[str, None] = {}
    left, seen = [distribution], {distribution}
    while left:
        for text in metadata.requires(left.pop()) or ():
            with contextlib.suppress(InvalidRequirement):
                wanted = Requirement(text)
                if not is_met(text):
                    missing[text.partition(";")[0].strip()] = None
                elif wanted.name not in seen and _applies(wanted):
                    seen.add(wanted.name)
                    left.append(wanted.name)
    return list(missing)


def is_met(requirement: str) -> bool:
    """Whether a requirement is installed in a version that fits, or is none here.

    Raises InvalidRequirement for what cannot be read.
    """
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    try:
        return not _applies(wanted) or wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def _applies(wanted: Any) -> bool:
    """Whether a Requirement is one here: its marker may be for another system, or for an extra."""
    return wanted.marker is None or wanted.marker.evaluate({"extra": ""})
