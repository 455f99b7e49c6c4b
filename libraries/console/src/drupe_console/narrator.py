"""Narrator: prints the events of a run as they happen."""

from __future__ import annotations

import sys

from drupe.api import Event, hookimpl

INDENT, DETAIL = "  ", "    "
NOTED = "cache-"
"""How the names of events begin that a user is told of in any case."""


class Narrator:
    """An observer that prints events to stderr. level: 1 names steps and times, 2 adds their details.

    What the cache says is printed as a note at every level; at 0, nothing else is.

    Events of a run inside another run, such as the reference that the closing check builds, stand indented below it.
    """

    def __init__(self, level: int) -> None:
        self.level = level
        self._depths: dict[str, int] = {}

    @hookimpl
    def drupe_observe(self, event: Event) -> None:
        if event.name.startswith(NOTED):
            print(f"note: {event.details['what']}", file=sys.stderr)
        elif self.level:
            self._narrate(event)

    def _narrate(self, event: Event) -> None:
        indent = INDENT * self._depth(event)
        ended = "" if event.seconds is None else f" ({event.seconds:.2f} s)"
        print(f"{indent}{event.name}: {event.subject}{ended}", file=sys.stderr)
        for name, value in event.details.items():
            if self.level > 1 and name != "error":  # the program prints the error when it ends
                print(f"{indent}{DETAIL}{name}: {value}", file=sys.stderr)

    def _depth(self, event: Event) -> int:
        """How many other runs the event's run is nested in."""
        depth = self._depths.get(event.parent, 0) + 1 if event.parent else 0
        self._depths[event.run] = depth
        return depth
