"""The staying process: one that goes on with package after package, for the brief measurements of a search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from drupe_timing import PackageProcess

CHILD = "drupe_eval_speed.child"
_STAYING: list[PackageProcess] = []
"""The process, where there is one. It ends with this one at the latest."""


@contextmanager
def staying(package: str, provider: str) -> Iterator[PackageProcess]:
    """The process, which goes on with this package. After an error, the next package gets another one."""
    known = _STAYING.pop() if _STAYING else None
    process = known or PackageProcess(CHILD, package, provider=provider).__enter__()
    try:
        if known:
            known.go_on(package, provider=provider)
        yield process
        process.ask("close")
    except BaseException:
        process.end()
        raise
    _STAYING.append(process)


def end_staying() -> None:
    """End the process: what is measured in full has the machine for itself."""
    while _STAYING:
        _STAYING.pop().end()
