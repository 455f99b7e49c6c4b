"""Command lines of other tools: what plugins make of them before a command reads them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from drupe.api import Notice, PluginError, call
from drupe_commands.asking import first_answer

if TYPE_CHECKING:
    from drupe.api import Entry

HOOK = "drupe_command_line_readers"
SAID = ("changed", "left out", "missing")
"""The handlings of what a user is told of; what is kept needs no word."""


def translated(typed: Sequence[str], own: frozenset[str] | None) -> list[str]:
    """A command line as Drupe's commands take it. What is done about flags of other tools is printed, one in a line.

    typed: a command's name and its arguments. own: the flags of Drupe's command of that name; None where there is none.
    """
    answer = first_answer("command line reader", HOOK, lambda entry: _by(entry, typed, own))
    if answer is None:
        return list(typed)
    arguments, notices = answer
    for notice in notices:
        _say(notice)
    return arguments


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
