"""PackageProcess: a package that is measured in a process of its own, as the measuring program sees it."""

from __future__ import annotations

from typing import Any

from drupe.api import CheckFailed, error_from
from drupe_processes.child import ChildEnded, ChildProcess
from drupe_timing.orders import START


class PackageProcess:
    """A context manager; the process is ended with it, whatever it is doing. Each method waits for an answer."""

    def __init__(self, module: str, package: str, **first: Any) -> None:
        """module: what the process runs; it calls `drupe_timing.orders.serve`. first: its first order."""
        self._package = package
        self._child = ChildProcess(module, {"package": package, **first})

    def __enter__(self) -> PackageProcess:
        try:
            self._answer()
        except BaseException:
            self._child.close()
            raise
        return self

    def go_on(self, package: str, **first: Any) -> None:
        """Go on with another package. The one before has to be closed by an order of the caller."""
        self._package = package
        self.ask(START, package=package, **first)

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._child.close()

    def __exit__(self, *_: object) -> None:
        self.end()

    def ask(self, order: str, **values: Any) -> dict[str, Any]:
        """Have an order carried out; returns the answer. Raises the error that the process tells of.

        Raises CheckFailed where the process ends without an answer.
        """
        self._child.send({"do": order, **values})
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._child.receive()
        except ChildEnded as end:
            raise self._failed(end) from None
        if "error" in answer:
            error = error_from(answer)
            error.where = error.where or self._package
            raise error
        return answer

    def _failed(self, end: ChildEnded) -> CheckFailed:
        if end.out_of_memory:
            what = "the system stopped the process that runs the package, probably because memory ran out"
            return CheckFailed(what, where=self._package, cure="measure one package at a time, or smaller cases")
        tail = "".join(f"\n  {line}" for line in end.said)
        return CheckFailed(
            f"the process that runs the package ended before it was measured (exit status {end.status}){tail}",
            where=self._package,
        )
