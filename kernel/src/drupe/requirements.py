"""Requirements: what a distribution requires and what of it is installed."""

from __future__ import annotations

import contextlib
from importlib import metadata


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
                name = Requirement(text).name
                if not is_met(text):
                    missing[text.partition(";")[0].strip()] = None
                elif name not in seen and applies(text):
                    seen.add(name)
                    left.append(name)
    return list(missing)


def is_met(requirement: str) -> bool:
    """Whether a requirement is installed in a version that fits, or is none here.

    Raises InvalidRequirement for what cannot be read.
    """
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    try:
        return not applies(requirement) or wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def applies(requirement: str) -> bool:
    """Whether a requirement is one here: its marker may be for another system, or for an extra."""
    from packaging.requirements import Requirement

    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate({"extra": ""})
