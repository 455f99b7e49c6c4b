"""Option: something that a user can set, declared by the plugin that reads it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from drupe.errors import UsageError, unknown
from drupe.values.typed import Typed

TYPES = (str, int, float, bool, Path)
"""What one value of an option can be."""


class Option(Typed):
    """It fills the command line, workflow files, `--help` and errors alike.

    name: in snake case; `block_size` is typed --block-size. help: one sentence.
    type: of one value (str, int, float, bool, pathlib.Path). multiple: whether it may be given several times.
    choices: the values it may have; empty for any. group: the heading that it stands under in `--help`.
    default: in words, what holds where it is not given. off: the name of the flag that says no, for a bool.
    needs: in words, what has to be given for it to have an effect ("--quality best").
    source: whether it is read while the model is looked for. secret: never recorded. environment: a variable that
    sets it as well. extends: it adds `choices` to another plugin's option of that name.
    """

    name: str
    help: str
    type: type = str
    choices: tuple[str, ...] = ()
    group: str = ""
    multiple: bool = False
    default: str = ""
    off: str = ""
    needs: str = ""
    source: bool = False
    secret: bool = False
    environment: str = ""
    extends: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in {self.name, *self.flags}:
            if not name.isidentifier() or name != name.lower():
                raise ValueError(f"{name!r} is not a name in snake case")
        if self.type not in TYPES:
            raise ValueError(f"the option '{self.name}' has the type {self.type.__name__}, which nobody can type")

    @property
    def flags(self) -> set[str]:
        """The names that a user can type: its own, and the one that says no."""
        return {self.name, self.off} - {""}

    @property
    def flag(self) -> str:
        """How a user types it."""
        return flag(self.name)

    def typed(self, value: Any) -> str:
        """The flag that a user has typed to give it this value."""
        return flag(self.off) if self.off and value is False else self.flag

    def refuse(self, value: Any) -> None:
        """Raise UsageError for a value that is none of the choices or no path, and for several where there is one."""
        if isinstance(value, list | tuple) and not self.multiple:
            raise UsageError(f"{self.flag} takes one value, not a list of {len(value)}", cure=f"{self.flag} {value[0]}")
        for each in several(value):
            if self.type is Path and (each == "" or not isinstance(each, str | Path)):
                raise UsageError(f"{self.flag} takes a path, not {each!r}", cure=f"{self.flag} PATH")
            if self.choices and each not in self.choices:
                cure = f"{self.flag} {' or '.join(self.choices)}"
                raise unknown(f"value of {self.flag}", str(each), self.choices, cure=cure)


def flag(name: str) -> str:
    """How a user types the option of that name."""
    return "--" + name.replace("_", "-")


def several(value: Any) -> tuple[Any, ...]:
    """The values of an option that may have more than one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def given(options: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The options that have a value: None, and a list without entries, stand for one that is not given."""
    return {name: value for name, value in options if value not in (None, [], ())}
