"""The parent, as a child process sees it: it gives orders on standard input, and reads answers from standard output.

Both are JSON, one value a line. Starting a child must be quick, so this module imports little.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

Orders = Iterator[Any]
"""The parent's orders, as they come. They end with the parent."""
Answer = Callable[[Any], None]
"""Sends a value to the parent."""


def run_as_child(work: Callable[[Orders, Answer], None]) -> NoReturn:
    """Do the work of this process, then end it."""
    status = 1
    try:
        with os.fdopen(os.dup(1), "w", encoding="utf-8") as there:
            os.dup2(2, 1)  # what native code prints must not stand among the answers
            work(map(json.loads, sys.stdin), lambda value: print(json.dumps(value), file=there, flush=True))
        status = 0
    except BrokenPipeError:  # the parent has ended
        pass
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)  # skips the clean-up of native code at exit, which may take long and may crash
