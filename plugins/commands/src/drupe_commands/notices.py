"""How a command shows what a user should know of a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drupe.api import Notice


def print_notices(notices: Iterable[Notice]) -> None:
    """One notice a line: what it is about, what is done about it, and what it says; below it what the user can do."""
    for notice in notices:
        print(f"note: {notice.about}, {notice.handling}: {notice.what}")
        if notice.cure:
            print(f"  {notice.cure}")
