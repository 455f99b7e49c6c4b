"""This machine's CPU and its free memory, found with the standard library alone."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")


def processor() -> str:
    """The CPU's name: the maker's name for it if the system gives one."""
    if sys.platform == "linux":
        name = _field(Path("/proc/cpuinfo"), "model name")
    elif sys.platform == "darwin":
        name = _sysctl("machdep.cpu.brand_string").decode(errors="replace").rstrip("\0")
    else:
        name = os.environ.get("PROCESSOR_IDENTIFIER", "")
    return name or platform.processor() or platform.machine() or "processor"


def physical_cores() -> int | None:
    """The cores that this process may use, where threads of one core count once. None where the system is silent."""
    if sys.platform == "linux":
        cores = {_text(CPUS / f"cpu{each}" / "topology" / "thread_siblings_list") for each in os.sched_getaffinity(0)}
        return len(cores - {""}) or None
    if sys.platform == "darwin":
        return int.from_bytes(_sysctl("hw.physicalcpu"), sys.byteorder) or None
    return None


def available_memory() -> int | None:
    """Bytes that a new process may use; on macOS, all memory of the machine. None where the system does not say."""
    if sys.platform == "linux":
        free = _field(Path("/proc/meminfo"), "MemAvailable").split()
        known = [int(free[0]) * 1024 if free else None, _cgroup_room()]
        return min((each for each in known if each is not None), default=None)
    if sys.platform == "darwin":
        return int.from_bytes(_sysctl("hw.memsize"), sys.byteorder) or None
    if sys.platform == "win32":
        return _windows_memory()
    return None


def _field(file: Path, name: str) -> str:
    """The value of the first line `name : value`; empty where there is no such line."""
    for line in _text(file).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cgroup_room(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes left within the container's limit (cgroup version 2, then 1); None without a limit.

    The cgroup counts file pages that were not used recently as used memory, although the system frees them on demand.
    """
    for limit, used, statistics, idle in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        allowed, taken = _text(root / limit).strip(), _text(root / used).strip()
        if allowed.isdigit() and taken.isdigit():
            rows = dict(line.split() for line in _text(root / statistics).splitlines())
            return max(0, int(allowed) - int(taken) + int(rows.get(idle, 0)))
    return None


def _sysctl(name: str) -> bytes:
    """A value of macOS's sysctl; empty where there is none."""
    libc = ctypes.CDLL(None)
    size = ctypes.c_size_t(0)
    if libc.sysctlbyname(name.encode(), None, ctypes.byref(size), None, 0):
        return b""
    value = ctypes.create_string_buffer(size.value)
    return value.raw if not libc.sysctlbyname(name.encode(), value, ctypes.byref(size), None, 0) else b""


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API; its memory sizes are in bytes."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("total", "available", "pages", "free_pages", "virtual", "free_virtual")),
        ("extended", ctypes.c_uint64),
    )


def _windows_memory() -> int | None:
    status = _MemoryStatus(size=ctypes.sizeof(_MemoryStatus))
    windows = getattr(ctypes, "windll")  # noqa: B009  (not there elsewhere, which mypy knows)
    return status.available if windows.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None
