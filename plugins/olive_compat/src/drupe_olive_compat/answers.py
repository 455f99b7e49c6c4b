"""Answer and Ledger: what is done about each thing that a file asks for."""

from __future__ import annotations

import dataclasses
from typing import Any

from drupe.api import Notice, Record

KEPT, CHANGED, LEFT_OUT, MISSING = "kept", "changed", "left out", "missing"


class Answer(Record):
    """What is done about one thing. handling: KEPT, CHANGED, LEFT_OUT or MISSING. cure: what to do instead."""

    handling: str
    what: str
    cure: str = ""


def kept(what: str) -> Answer:
    """Drupe does the same."""
    return Answer(KEPT, what)


def changed(what: str, cure: str = "") -> Answer:
    """Drupe does it differently."""
    return Answer(CHANGED, what, cure)


def left_out(what: str, cure: str = "") -> Answer:
    """Drupe does not do it, and the package is whole without it."""
    return Answer(LEFT_OUT, what, cure)


def missing(what: str, cure: str) -> Answer:
    """Drupe does not do it, and the package would be another one without it: the file is not carried out."""
    return Answer(MISSING, what, cure)


OFF = kept("it is off, as here")


def is_off(value: Any) -> bool:
    """Whether a value asks for nothing: none, false, an empty list or mapping. A 0 is a number like others."""
    return value is None or value is False or (isinstance(value, list | dict) and not value)


@dataclasses.dataclass
class Ledger:
    """All answers to a file, in its order."""

    notices: list[Notice] = dataclasses.field(default_factory=list)

    def say(self, place: str, answer: Answer) -> None:
        notice = Notice(place, answer.handling, answer.what, answer.cure)
        if notice not in self.notices:
            self.notices.append(notice)

    def instead(self, place: str, answer: Answer) -> None:
        """Put an answer in the place of the kept one that there is for an option."""
        notice = Notice(place, answer.handling, answer.what, answer.cure)
        for at, each in enumerate(self.notices):
            if each.about == place and each.handling == KEPT:
                self.notices[at] = notice
                return
        self.notices.append(notice)

    def add(self, other: Ledger) -> None:
        """Take the answers of another ledger."""
        self.notices += [each for each in other.notices if each not in self.notices]

    @property
    def lacks(self) -> bool:
        """Whether something is missing."""
        return any(notice.handling == MISSING for notice in self.notices)
