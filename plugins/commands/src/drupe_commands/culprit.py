"""Whose mistake an error is that nobody foresaw."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drupe.api import Plugin, Registry


def culprit(error: BaseException, found: Registry) -> Plugin | None:
    """The plugin in whose code an error was raised, or that called what raised it; None where there is none."""
    entries = [(getattr(found.manager.get_plugin(each.name), "__name__", ""), each) for each in found.working]
    targets = [(entry.ref.target.partition(":")[0], entry.plugin) for table in found.tables for entry in table]
    homes = {module.partition(".")[0]: plugin for module, plugin in reversed([*entries, *targets])}
    passed = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    owners = [homes.get(module.partition(".")[0]) for module in passed]
    return next((owner for owner in reversed(owners) if owner), None)
