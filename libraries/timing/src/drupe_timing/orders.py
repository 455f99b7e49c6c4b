"""Orders: what a process that measures a package is told to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from drupe.api import DrupeError
from drupe_processes.parent import Answer, Orders, run_as_child

START = "start"
"""The order that says which package the next ones are about."""


def serve(make: Callable[..., Any]) -> NoReturn:
    """Carry out orders until the parent ends, then end the process.

    The first order calls `make`, and START calls it again, where the process goes on with another package. Each other
    order calls a method of what that gives. Every method gives a mapping.
    """
    run_as_child(partial(_carry_out, make))


def _carry_out(make: Callable[..., Any], orders: Orders, answer: Answer) -> None:
    made = None
    for order in orders:
        try:
            name = order.pop("do", START)
            if name == START:
                made = make(**order)
                answer({})
            else:
                answer(getattr(made, name)(**order))
        except DrupeError as error:
            answer(error.document())
