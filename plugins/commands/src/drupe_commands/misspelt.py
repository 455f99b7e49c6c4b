"""Misspelt declarations: attributes of a plugin's class that its contract does not know, and nothing reads."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from drupe import api

if TYPE_CHECKING:
    from drupe.api import Entry

CONTRACTS = (
    "ModelKind", "Task", "Pass", "ExecutionProvider", "Runtime", "Evaluator", "Planner", "Publisher", "Verifier",
)  # fmt: skip
ALIKE = 0.8
"""How much two names must have in common for one to be taken for the other, misspelt: 1 for equal names."""


def misspelt_attributes(entry: Entry[Any]) -> Iterator[str]:
    """Attributes that another contract declares, and those that are called nearly as one that the class leaves out."""
    if not entry.contract:
        return
    classes = entry.resolve().__mro__
    own = [each for each in classes if each.__module__.partition(".")[0] in entry.plugin.modules]
    known = {name for each in classes if each not in own for name in _public(each)}
    stated = dict.fromkeys(name for each in own for name in _public(each))
    for name in stated.keys() - known:
        if others := [each for each in CONTRACTS if name in vars(getattr(api, each)).get("__annotations__", ())]:
            yield f"its attribute '{name}' has no effect: {' and '.join(others)} has it, and {entry.contract} does not"
        elif close := difflib.get_close_matches(name, known - stated.keys(), 1, ALIKE):
            yield f"{entry.contract} has no attribute '{name}'; did you mean '{close[0]}'?"


def _public(kind: type) -> list[str]:
    """What a class has for others to use, with a value or without."""
    return [name for name in {**vars(kind), **vars(kind).get("__annotations__", {})} if not name.startswith("_")]
