"""The NVIDIA GPUs of this machine, as the driver lists them."""

from __future__ import annotations

import shutil
import subprocess

_QUERY = ("--query-gpu=name,memory.free", "--format=csv,noheader,nounits")
_MEBIBYTE = 1024 * 1024
_PATIENCE = 10.0
"""Seconds to wait for the driver: a sleeping driver takes a few seconds to answer."""


def gpus() -> list[tuple[str, int | None]]:
    """Name and free bytes of each GPU; empty where the driver does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        answer = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=_PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return parsed(answer.stdout)


def parsed(answer: str) -> list[tuple[str, int | None]]:
    """nvidia-smi's lines `name, mebibytes`; a GPU that shares the system's memory reports no number."""
    found: list[tuple[str, int | None]] = []
    for line in answer.splitlines():
        name, comma, free = line.rpartition(",")
        if comma:
            found.append((name.strip(), int(free) * _MEBIBYTE if free.strip().isdigit() else None))
    return found
