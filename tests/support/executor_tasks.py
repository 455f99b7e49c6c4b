"""Tasks that tests give to executors of searches. Workers import this module."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def once_killed(task: dict[str, Any]) -> dict[str, Any]:
    """Wait to be killed; when it is begun again, give what it is given."""
    log = Path(task["log"])
    with log.open("a") as file:
        print(os.getpid(), file=file)
    while len(log.read_text().splitlines()) == 1:
        time.sleep(0.05)
    return {"given": task["given"]}


def ends_its_process(task: dict[str, Any]) -> dict[str, Any]:
    os._exit(3)


def fails(task: dict[str, Any]) -> dict[str, Any]:
    raise ValueError("not this one")


def gives(task: dict[str, Any]) -> dict[str, Any]:
    return {"given": task["given"], "folder": "folder" in task}


def kill_first(log: Path) -> None:
    """Kill the worker of `once_killed`, which writes the number of its process to a file."""
    while not log.exists() or not log.read_text().endswith("\n"):
        time.sleep(0.02)
    os.kill(int(log.read_text()), signal.SIGKILL)
