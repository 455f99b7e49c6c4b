"""The errors a user meets: each says what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable


class DrupeError(Exception):
    """Something that a user can cause and mend.

    what: one sentence that names the thing at fault.
    where: the file, key or option it was met in, when that is known.
    cure: what to do, as a command where there is one.
    """

    exit_status = 1

    def __init__(self, what: str, *, where: object = None, cure: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.cure = cure

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  in: {self.where}")
        if self.cure:
            lines.append(f"  try: {self.cure}")
        return "\n".join(lines)


class UsageError(DrupeError):
    """A wrong option, name or configuration."""

    exit_status = 2


class NoRoom(UsageError):
    """A prompt that leaves no room for an answer."""


class ModelError(DrupeError):
    """The model that was given is missing, broken or not supported."""

    exit_status = 3


class PlanError(DrupeError):
    """A plan whose passes do not fit together, or do not fit the target."""

    exit_status = 4


class OutputError(DrupeError):
    """The output cannot be written."""

    exit_status = 5


class RuntimeMissing(DrupeError):
    """What would run the model is not installed, or not able to run it here."""

    exit_status = 6


class CheckFailed(DrupeError):
    """A package was made, but it does not do what it should; it is not published."""

    exit_status = 7


class PluginError(DrupeError):
    """A plugin is broken, or two of them claim one name."""

    exit_status = 8


class Cancelled(DrupeError):
    """The user stopped the run."""

    exit_status = 130

    def __init__(self, what: str = "stopped") -> None:
        super().__init__(what)


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names in `known` that look most like `name`, best first."""
    import difflib

    by_folded = {candidate.casefold(): candidate for candidate in known}
    return [by_folded[match] for match in difflib.get_close_matches(name.casefold(), by_folded, count, 0.5)]


def unknown(what: str, name: str, known: Iterable[str], *, where: object = None, cure: str | None = None) -> UsageError:
    """The error for a name that nothing answers to: the nearest good ones, or all of them."""
    names = sorted(known)
    close = nearest(name, names)
    if close:
        hint = "did you mean " + " or ".join(close) + "?"
    elif names:
        hint = "there are: " + ", ".join(names)
    else:
        hint = f"no {what} is installed"
    return UsageError(f"unknown {what} '{name}'; {hint}", where=where, cure=cure)
