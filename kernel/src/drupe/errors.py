"""The errors a user meets: each says what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from drupe.values.event import Metric


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

    def document(self) -> dict[str, str | None]:
        """The error as JSON has it, for another process; see `error_from`."""
        return {"error": type(self).__name__, "what": self.what, "where": self.where, "cure": self.cure}

    def __str__(self) -> str:
        lines = (self.what, self.where and f"  in: {self.where}", self.cure and f"  try: {self.cure}")
        return "\n".join(filter(None, lines))


class UsageError(DrupeError):
    """A wrong option, name or configuration."""

    exit_status = 2


class ModelError(DrupeError):
    """The model that was given is missing, broken or not supported."""

    exit_status = 3


class PlanError(DrupeError):
    """A plan whose passes do not fit together, or do not fit the target."""

    exit_status = 4


class Unfit(PlanError):
    """A model that its target would not run, whatever the passes are told."""


class OutputError(DrupeError):
    """The output cannot be written."""

    exit_status = 5


class RuntimeMissing(DrupeError):
    """What would run the model is not installed, or not able to run it here."""

    exit_status = 6


class CheckFailed(DrupeError):
    """A package was made, but it does not do what it should; it is not published.

    metrics: what was measured of it, where that is beyond a limit.
    """

    exit_status = 7

    def __init__(
        self, what: str, *, where: object = None, cure: str | None = None, metrics: Sequence[Metric] = ()
    ) -> None:
        super().__init__(what, where=where, cure=cure)
        self.metrics = tuple(metrics)


class PluginError(DrupeError):
    """A plugin is broken, or two of them claim one name."""

    exit_status = 8


class NotChecked(DrupeError):
    """A package was made that could not be checked, and the user wants none that was not."""

    exit_status = 9


class PluginCrash(PluginError):
    """The code of a plugin ended in a way that nobody foresaw; its traceback is the cause of this error."""

    exit_status = 70


class Cancelled(DrupeError):
    """The user stopped the run. cure: how to go on, where something of the work is kept."""

    exit_status = 130

    def __init__(self, what: str = "stopped", *, cure: str | None = None) -> None:
        super().__init__(what, cure=cure)


def error_from(document: Mapping[str, str | None]) -> DrupeError:
    """The error that another process has told of. A plugin's own class comes back as DrupeError."""
    kinds = {kind.__name__: kind for kind in _kinds(DrupeError)}
    error = kinds.get(document["error"] or "", DrupeError)(document["what"] or "")
    error.where, error.cure = document["where"], document["cure"]
    return error


def _kinds(kind: type[DrupeError]) -> list[type[DrupeError]]:
    return [kind, *(each for narrower in kind.__subclasses__() for each in _kinds(narrower))]


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 merge", "2 merges". plural: where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names in `known` that look most like `name`, best first."""
    import difflib

    by_folded = {candidate.casefold(): candidate for candidate in known}
    return [by_folded[match] for match in difflib.get_close_matches(name.casefold(), by_folded, count, 0.5)]


def unknown(what: str, name: str, known: Iterable[str], *, where: object = None, cure: str | None = None) -> UsageError:
    """The error for a name that nothing answers to: the nearest good ones, or all of them.

    what: what it would be the name of, with its owner where it has one ("key of the pass 'sign'").
    """
    names = sorted(known)
    hint = "it has no keys" if what.startswith("key") else f"no {what} is installed"
    if names:
        close = nearest(name, names)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(names)}"
    sort, of, owner = what.partition(" of ")
    return UsageError(f"unknown {sort} '{name}'{of}{owner}; {hint}", where=where, cure=cure)
