"""Asking the plugins that implement a hook, one after the other, until one has an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from drupe.api import PluginError, registry

if TYPE_CHECKING:
    from drupe.api import Entry

T = TypeVar("T")


def first_answer(thing: str, hook: str, ask: Callable[[Entry[Any]], T | None]) -> T | None:
    """What `ask` makes of the first plugin for which it is not None; None where it is None for all.

    thing: what the hook lists, one of it. A plugin of another party that fails is not asked again, and the user is
    told.
    """
    found = registry()
    for entry in found.offered(thing, hook):
        try:
            answer = ask(entry)
        except PluginError as error:
            if entry.plugin.shipped:
                raise
            found.disable(entry.plugin, error.what, error)
            continue
        if answer is not None:
            return answer
    return None
