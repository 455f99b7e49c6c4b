"""Memory: the most that this process has held, and whether a device has enough for packages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from drupe_files.disk import folder_bytes

if TYPE_CHECKING:
    from drupe.api import Target

HEADROOM = 1.3
"""The memory that a runtime needs for a package, as a multiple of the package's size."""


def memory_shortage(packages: Sequence[Path], target: Target) -> tuple[int, int] | None:
    """The MiB of memory that packages need when all are open, and those that the target's device has free.

    None where they fit, and where nobody knows. A package that is open several times is given several times.
    """
    if target.device is None or target.device.memory is None:
        return None
    needed, free = int(HEADROOM * sum(map(folder_bytes, packages))), target.device.memory
    return (needed >> 20, free >> 20) if free < needed else None


def peak_memory() -> int | None:
    """The most memory this process has held so far, in bytes; None on a system that does not say.

    On Linux the process table is read first, because getrusage also counts what the parent held before the exec.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
