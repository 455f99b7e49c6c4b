"""Orders: what a process that measures a package is told to do, one order a line.

Orders come as JSON on standard input, and each is answered with a line of JSON. The process ends when the input does,
so it does not outlive the program that has started it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from drupe.api import DrupeError


def serve(make: Callable[..., Any]) -> None:
    """Carry out orders until the input ends, then end the process.

    The first order calls `make`, each other one a method of what that gives. Every method gives a mapping.
    """
    status = 1
    try:
        _carry_out(make)
        status = 0
    except BrokenPipeError:  # nobody waits for an answer any more
        pass
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)  # skips a runtime's own clean-up at exit, which is not part of the measurement


def _carry_out(make: Callable[..., Any]) -> None:
    made = None
    with _answers() as there:
        for line in sys.stdin:
            order: dict[str, Any] = json.loads(line)
            name = order.pop("do")
            try:
                if made is None:
                    made, answer = make(**order), {}
                else:
                    answer = getattr(made, name)(**order)
            except DrupeError as error:
                answer = error.document()
            print(json.dumps(answer), file=there, flush=True)


@contextmanager
def _answers() -> Iterator[IO[str]]:
    """Where answers go. What native code prints goes to standard error, so that it does not mix with them."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as there:
        os.dup2(2, 1)
        yield there
