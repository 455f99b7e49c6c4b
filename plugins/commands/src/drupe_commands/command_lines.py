"""Command lines of other tools: what plugins make of them before a command reads them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from drupe.api import Notice, PluginError, call, registry

if TYPE_CHECKING:
    from drupe.api import Entry

HOOK = "drupe_command_line_readers"
SAID = ("changed", "left out", "missing")
"""The handlings of what a user is told of; what is kept needs no word."""


def translated(typed: Sequence[str], own: frozenset[str] | None) -> list[str]:
    """A command line as Drupe's commands take it. What is done about flags of other tools is printed, one in a line.

    typed: a command's name and its arguments. own: the flags of Drupe's command of that name; None where there is none.
    A plugin of another party that fails is not asked again, and the user is told.
    """
    found = registry()
    for entry in found.offered("command line reader", HOOK):
        try:
            answer = _by(entry, typed, own)
        except PluginError as error:
            if entry.plugin.shipped:
                raise
            found.disable(entry.plugin, error.what, error)
            continue
        if answer is not None:
            arguments, notices = answer
            for notice in notices:
                _say(notice)
            return arguments
    return list(typed)


def _by(entry: Entry[Any], typed: Sequence[str], own: frozenset[str] | None) -> tuple[list[str], list[Notice]] | None:
    """What one plugin makes of a line. Raises PluginError for an answer that is none."""
    function: Any = entry.resolve()
    answer = call(entry.plugin, f"reading a command line with {entry.title}", function, typed[0], list(typed[1:]), own)
    if answer is None:
        return None
    arguments, notices = answer if isinstance(answer, tuple) and len(answer) == 2 else (None, None)
    if (
        not (isinstance(arguments, list) and arguments and isinstance(notices, list))
        or not all(isinstance(each, str) for each in arguments)
        or not all(isinstance(each, Notice) for each in notices)
    ):
        what = f"{entry.title} gave {type(answer).__name__} in place of arguments and a list of notices"
        raise PluginError(what, cure=entry.plugin.removal)
    return arguments, notices


def _say(notice: Notice) -> None:
    if notice.handling in SAID:
        cure = f"; {notice.cure}" if notice.cure else ""
        print(f"note: {notice.about}: {notice.handling}: {notice.what}{cure}", file=sys.stderr)
