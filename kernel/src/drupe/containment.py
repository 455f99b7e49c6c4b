"""The one place through which the code of plugins is called: what goes wrong there is contained, and has a name."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from drupe.errors import DrupeError, PluginCrash

SLOW = 1.0
"""Seconds that a plugin may take to say what it brings before a user is told who keeps them waiting."""
LONGEST = 300
"""Characters of a message or a value that are shown."""
MACHINERY = ("pluggy", "importlib", "metadata", "pydantic")
"""Folders of the libraries that stand between the kernel and a plugin's code."""
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass
class Plugin:
    """An installed plugin. reason: why it is not in use, None when it is; cure: what would mend that.

    shipped: whether it is one of those that the distribution `drupe` itself requires. left_out: whether DRUPE_PLUGINS
    is the reason. notes: what is wrong with it though it is in use. seconds: how long it took to say what it brings.
    error: what took it out of use, where its code has raised.
    """

    name: str
    distribution: str
    version: str
    reason: str | None = None
    cure: str | None = None
    shipped: bool = False
    left_out: bool = False
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    error: BaseException | None = None

    @property
    def title(self) -> str:
        """Distribution and version, for a person."""
        return f"{self.distribution} {self.version}"

    @property
    def removal(self) -> str:
        """The command that takes it away."""
        return f"pip uninstall {self.distribution}"

    def mending(self, again: bool = False) -> str:
        """The command that may mend it. again: whether what is installed may be a half of it."""
        return f"pip install -U {'--force-reinstall ' if again else ''}{self.distribution}, or {self.removal}"

    def remark(self, about: str) -> None:
        """Note something that is wrong with it, and tell the user, once."""
        if about not in self.notes:
            self.notes += (about,)
            warn(f"{self.title} {about}")


def call(
    plugin: Plugin,
    doing: str,
    function: Callable[Parameters, Result],
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> Result:
    """Call a plugin's code. doing: what it was called for ("its hook drupe_claim").

    A DrupeError is the plugin's word to the user, and passes. Raises PluginCrash, which names distribution, version,
    file and line, for anything else, SystemExit included. What the plugin prints goes to standard error.
    """
    try:
        with contextlib.redirect_stdout(Overheard(plugin)):
            return function(*args, **kwargs)
    except (DrupeError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginCrash(
            f"{doing if plugin.title in doing else f'{doing} of {plugin.title}'} raised {one_line(error)}",
            where=place(error),
            cure=f"report it to the makers of {plugin.distribution}, or {plugin.removal}",
        ) from error


class Overheard:
    """Standard output while a plugin runs: what it prints goes to standard error, after a line on whose it is."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)

    def write(self, text: str) -> int:
        self._plugin.remark("prints to standard output, which is the program's own; it is shown here")
        return sys.stderr.write(text)


@contextlib.contextmanager
def timed(plugin: Plugin) -> Iterator[None]:
    """Add what a block takes to the plugin's account."""
    started = time.perf_counter()
    try:
        yield
    finally:
        plugin.seconds += time.perf_counter() - started


def one_line(value: object) -> str:
    """An error or a value in one line of bearable length, whatever its own code for that does."""
    try:
        text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
    except Exception:
        text = type(value).__name__
    text = " ".join(text.split()).rstrip(": ")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def place(error: BaseException) -> str | None:
    """File and line where an error was raised: the last one in a plugin's own code; None where there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    return next((f"{each.filename}:{each.lineno}" for each in reversed(frames) if _is_foreign(each.filename)), None)


def _is_foreign(file: str) -> bool:
    """Whether a file is neither the kernel's nor that of a library which calls plugins for it."""
    path = Path(file)
    own = path.is_relative_to(Path(__file__).parent) or path.parent.name in MACHINERY
    return not own and not file.startswith("<")


def warn(line: str) -> None:
    """A line for the user about what went wrong beside the job."""
    print(f"warning: {line}", file=sys.stderr)
