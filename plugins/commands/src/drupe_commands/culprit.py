"""Whose mistake an error is that nobody foresaw, and what of its traceback is theirs."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drupe.api import Plugin, Registry

WHOLE = "--log-level 2 shows the calls that led there"


def culprit(error: BaseException, found: Registry) -> Plugin | None:
    """The plugin in whose code an error was raised, or that called what raised it; None where there is none."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((plugin for frame in reversed(frames) for plugin in found.plugins if plugin.owns(frame)), None)


def own_traceback(error: BaseException, found: Registry) -> str:
    """An error as Python tells it, from the first line of its culprit's code on; whole where nobody is to blame."""
    plugin = culprit(error, found)
    if plugin is not None:
        _shorten(error, plugin)
    return "".join(traceback.format_exception(error))


def _shorten(error: BaseException, plugin: Plugin) -> None:
    """Take away the frames before the plugin's own, and earlier errors that were none of its code."""
    trace = error.__traceback__
    while trace is not None and not plugin.owns(trace.tb_frame):
        trace = trace.tb_next
    error.__traceback__ = trace
    for earlier in (error.__cause__, error.__context__):
        if earlier is not None:
            _shorten(earlier, plugin)
    if error.__context__ is not None and error.__context__.__traceback__ is None:
        error.__context__ = None
