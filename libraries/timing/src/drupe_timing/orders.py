"""Orders: what a process that measures a package is told to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from drupe.api import DrupeError
from drupe_processes.parent import Answer, Orders, run_as_child


def serve(make: Callable[..., Any]) -> NoReturn:
    """Carry out orders until the parent ends, then end the process.

    The first order calls `make`, each other one a method of what that gives. Every method gives a mapping.
    """
    run_as_child(partial(_carry_out, make))


def _carry_out(make: Callable[..., Any], orders: Orders, answer: Answer) -> None:
    made = None
    for order in orders:
        try:
            if made is None:
                made = make(**order)
                answer({})
            else:
                answer(getattr(made, order.pop("do"))(**order))
        except DrupeError as error:
            answer(error.document())
