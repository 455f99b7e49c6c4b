"""Misspelt declarations: attributes of a plugin's class that its contract does not know, and methods that do not take
what the contract gives them.
"""

from __future__ import annotations

import difflib
import inspect
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


def unfit_methods(entry: Entry[Any]) -> Iterator[str]:
    """The methods that cannot be called as the contract says, which would be found out in the middle of a run."""
    if not entry.contract:
        return
    found = entry.resolve()
    for name, declared in vars(getattr(api, entry.contract)).items():
        own = inspect.getattr_static(found, name)
        if not name.startswith("_") and inspect.isfunction(declared) and own is not declared:
            _self, *wanted = inspect.signature(declared).parameters.values()
            if (reason := _unfit(own, wanted)) is not None:
                told = ", ".join(each.name for each in wanted)
                yield f"its method {name} cannot be called as {name}({told}): {reason}"


def _unfit(own: Any, wanted: list[inspect.Parameter]) -> str | None:
    """Why an attribute of a class cannot be called with arguments for these parameters; None where it can."""
    function = own.__func__ if isinstance(own, staticmethod | classmethod) else own
    given = [each.name for each in wanted if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    named = {each.name: None for each in wanted if each.kind is inspect.Parameter.KEYWORD_ONLY}
    itself = [] if isinstance(own, staticmethod) else ["self"]
    try:
        inspect.signature(function).bind(*itself, *given, **named)
    except TypeError as error:
        return str(error)
    return "it is async, and nobody awaits it" if inspect.iscoroutinefunction(function) else None


def _public(kind: type) -> list[str]:
    """What a class has for others to use, with a value or without."""
    return [name for name in {**vars(kind), **vars(kind).get("__annotations__", {})} if not name.startswith("_")]
