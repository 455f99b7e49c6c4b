"""The one place through which the code of plugins is called: what goes wrong there is contained, and has a name."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from drupe.errors import DrupeError, PluginCrash
from drupe.requirements import lacking

SLOW = 1.0
"""Seconds that a plugin may take for one thing that is asked of it before a user is told who keeps them waiting."""
LONGEST = 300
"""Characters of a message or a value that are shown."""
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass
class Plugin:
    """An installed plugin. reason: why it is not in use, None when it is; cure: what would mend that.

    shipped: whether it is one of those that the distribution `drupe` itself requires. left_out: whether DRUPE_PLUGINS
    is the reason. notes: what is wrong with it though it is in use. seconds: how long it took to say what
    it brings, to import that, and to look for devices.
    error: what took it out of use, where its code has raised. modules: the top-level modules that hold its code.
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
    modules: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.overheard = Overheard(self)

    @property
    def title(self) -> str:
        """Distribution and version, for a person."""
        return f"{self.distribution} {self.version}"

    @property
    def removal(self) -> str:
        """The command that takes it away."""
        return f"pip uninstall {self.distribution}"

    def mending(self, error: BaseException | None = None) -> str:
        """What may mend it. error: what its code has raised."""
        while error is not None and error.__cause__ is not None:
            error = error.__cause__
        mended = self._mended_import(error) if isinstance(error, ImportError) else None
        return f"{mended or f'pip install -U {self.distribution}'}, or {self.removal}"

    def fail(self, reason: str, error: BaseException | None = None, where: str | None = None) -> None:
        """Take it out of use. error: what its code has raised, at `where`."""
        self.reason = reason + (f" ({where})" if where else "")
        self.error, self.cure = error, self.cure or self.mending(error)

    def _mended_import(self, error: ImportError) -> str | None:
        """What mends an import that failed, where more is known than that another release may."""
        module = (error.name or "").partition(".")[0]
        if module in self.modules:  # a part of the plugin itself
            return f"pip install -U --force-reinstall {self.distribution}"
        if missing := lacking(self.distribution):
            return f"pip install {shlex.join(missing)}"
        if isinstance(error, ModuleNotFoundError) and module == error.name:
            return f"install what brings the module '{module}' (all that {self.distribution} requires is installed)"
        return None

    def owns(self, frame: FrameType) -> bool:
        """Whether a frame is of its own code."""
        return str(frame.f_globals.get("__name__")).partition(".")[0] in self.modules

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
    """Call a plugin's code. doing: what is called ("drupe_claim()").

    A DrupeError is the plugin's word to the user, and passes. Raises PluginCrash, which names distribution, version,
    file and line, for anything else, SystemExit included. What the plugin prints goes to standard error.
    """
    try:
        with contextlib.redirect_stdout(plugin.overheard):
            return function(*args, **kwargs)
    except (DrupeError, KeyboardInterrupt):
        raise
    except BaseException as error:
        report = f"report it to the makers of {plugin.distribution}, or {plugin.removal}"
        raise PluginCrash(
            f"{doing if plugin.title in doing else f'{doing} of {plugin.title}'} raised {one_line(error)}",
            where=place(error, plugin),
            cure=plugin.mending(error) if isinstance(error, ImportError) else report,
        ) from error


class Overheard:
    """Standard output while a plugin runs: what it prints goes to standard error, after a line on whose it is.

    A plugin has one for good. Python's own `print` does not hold what it prints to: a thread that prints while
    another one has put standard output back would print to what is no longer there, and end the process.
    """

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)

    def close(self) -> None:
        """Leave standard error open: it is not the plugin's."""

    def write(self, text: str) -> int:
        if any(self._plugin.owns(frame) for frame, _ in traceback.walk_stack(sys._getframe())):  # not another's thread
            self._plugin.remark("prints to standard output, which is the program's own; it is shown here")
        return sys.stderr.write(text)


@contextlib.contextmanager
def timed(plugin: Plugin, doing: str) -> Iterator[None]:
    """Add what a block takes to the plugin's account; a third party's that keeps the user waiting is named, once.

    doing: what the block does ("say what it brings"). Of a plugin that fails in it, the failure alone is told.
    """
    started = time.perf_counter()
    try:
        yield
    finally:
        plugin.seconds += (seconds := time.perf_counter() - started)
    unnamed = not any(note.endswith(f" s to {doing}") for note in plugin.notes)
    if seconds > SLOW and unnamed and plugin.reason is None and not plugin.shipped:
        plugin.remark(f"took {seconds:.1f} s to {doing}")


def one_line(value: object) -> str:
    """An error or a value in one line of bearable length, whatever its own code for that does."""
    try:
        text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
    except BaseException:  # which its own code may raise for any question
        text = type(value).__name__
    text = " ".join(text.split()).rstrip(": ")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def place(error: BaseException, plugin: Plugin) -> str | None:
    """File and line where an error was raised: the last one in the plugin's own code; None where there is none.

    Of an import that failed it is the line which imports, in whatever library that the plugin has imported.
    """
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        return f"{error.filename}:{error.lineno}"
    frames = [each for each in traceback.walk_tb(error.__traceback__) if not each[0].f_code.co_filename.startswith("<")]
    own = [at for at, (frame, _) in enumerate(frames) if plugin.owns(frame)]
    if not own:
        return None
    frame, line = frames[-1 if isinstance(error, ImportError) else own[-1]]
    return f"{frame.f_code.co_filename}:{line}"


def warn(line: str) -> None:
    """A line for the user about what went wrong beside the job."""
    print(f"warning: {line}", file=sys.stderr)
