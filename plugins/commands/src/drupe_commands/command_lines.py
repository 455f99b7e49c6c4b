"""Command lines of other tools: what plugins make of them before a command reads them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from drupe.api import PluginError, call, registry

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
        function: Any = entry.resolve()
        try:
            answer = call(
                entry.plugin, f"reading a command line with {entry.title}", function, typed[0], list(typed[1:]), own
            )
        except PluginError as error:
            if entry.plugin.shipped:
                raise
            found.disable(entry.plugin, error.what, error)
            continue
        if answer is not None:
            arguments, notices = answer
            for notice in notices:
                if notice.handling in SAID:
                    cure = f"; {notice.cure}" if notice.cure else ""
                    print(f"note: {notice.about}: {notice.handling}: {notice.what}{cure}", file=sys.stderr)
            return list(arguments)
    return list(typed)
