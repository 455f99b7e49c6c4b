"""Names of evaluators that are functions of files: `FILE.py:FUNCTION`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from drupe.api import Ref, UsageError

if TYPE_CHECKING:
    from drupe.api import Registry

_FUNCTION = re.compile(r"(?P<file>.+\.py):(?P<function>[^:]+)")
_METRIC = re.compile(r"(?P<name>.+\.py:[^:]+)(?P<colon>:?)(?P<metric>.*)")
FORM = "FILE.py:FUNCTION"


def divided(text: str) -> tuple[str, str, str]:
    """The name, colon and metric of `NAME[:METRIC]`; the last two are empty where no metric is named."""
    if text.endswith(".py"):
        raise UsageError(f"'{text}' names a file, and no function of it", cure=f"--evaluator {FORM}")
    found = _METRIC.fullmatch(text)
    return (found["name"], found["colon"], found["metric"]) if found else text.partition(":")


def know(name: str, found: Registry) -> None:
    """Let the evaluators of this process have the function that `FILE.py:FUNCTION` names; its file is run.

    Other names are left alone. Raises UsageError for a file that cannot be run, and a function that is not there.
    """
    function = _FUNCTION.fullmatch(name)
    if function is None or name in found.evaluators:
        return
    from drupe_functions import loaded

    made, owner = loaded.evaluator_from(name, Path(function["file"]), function["function"])
    found.evaluators.add(Ref(name, f"{loaded.__name__}:{name}", made.summary), owner)
