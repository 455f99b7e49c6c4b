"""Messages: what a command tells the user beside its result. The result goes to standard output, messages to standard
error: notes on a model, warnings, hints, progress, errors. A JSON document of a result holds the notes instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drupe.api import Notice


def tell(line: str) -> None:
    """A line on standard error, after what is still to be printed on standard output."""
    sys.stdout.flush()
    print(line, file=sys.stderr)


def tell_notices(notices: Iterable[Notice]) -> None:
    """One notice a line: what it is about, what is done about it, and what it says; below it what the user can do."""
    for notice in notices:
        tell(f"note: {notice.about}, {notice.handling}: {notice.what}")
        if notice.cure:
            tell(f"  {installable(notice.cure)}")


def installable(text: str) -> str:
    """A message whose install commands work in this environment; see `from_sources`."""
    if "pip install" not in text:  # as in most messages: the module takes time to import
        return text
    from drupe_commands.from_sources import from_sources

    return from_sources(text)
