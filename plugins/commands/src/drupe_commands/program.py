"""The `drupe` program: commands of plugins, each loaded only when it runs."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
import threading
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from drupe.api import PROJECT, Cancelled, DrupeError, OutputError, PluginCrash, UsageError, call, one_line, place
from drupe_commands import interrupts
from drupe_commands.command_building import as_command
from drupe_commands.command_names import summaries
from drupe_commands.messages import installable
from drupe_commands.wrong_usage import WRONG_USAGE, told

CONTEXT = {"help_option_names": ["-h", "--help"], "token_normalize_func": lambda typed: typed.replace("_", "-")}
"""What all commands inherit. Long options may be typed with underscores, as users of Olive do."""
UNEXPECTED = 70
"""Exit status for an error that nobody foresaw."""
TYPED = "drupe.typed"
"""Where a command's context holds the arguments as they were typed."""
BUILT = "drupe.built"
"""Where a context holds the commands that were built, by name."""
HELP_IS_WANTED = "NoArgsIsHelpError"
"""typer's way to print the help of a group of commands; the class has no public name."""


class Commands(TyperGroup):
    """A group that knows its commands by name and summary, and imports one when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(summaries())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[TYPED] = list(args)
        try:
            return super().parse_args(ctx, args)
        except WRONG_USAGE as error:
            if type(error).__name__ == HELP_IS_WANTED:
                raise
            _complain(told(error, args))
            raise typer.Exit(UsageError.exit_status) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of a line. Other tools' command lines are read by plugins first."""
        from drupe.api import registry
        from drupe_commands.command_lines import translated

        own = None
        if args[0] in registry().commands:
            parameters = self.get_command(ctx, args[0]).params
            own = frozenset(each for one in parameters for each in (*one.opts, *one.secondary_opts))
        return super().resolve_command(ctx, translated(args, own))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from drupe.api import registry

        if cmd_name not in (built := ctx.meta.setdefault(BUILT, {})):
            entry = registry().commands.find(cmd_name)
            found = entry.resolve()
            built[cmd_name] = call(entry.plugin, f"building {entry.title[4:]}", as_command, cmd_name, found)
        return built[cmd_name]

    def get_help_option(self, ctx: Any) -> Any:
        """Not given, --help is False here: to make sense of a None, typer would import pydantic."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(summaries().items()))

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an error meant for the user is printed as one, without a traceback."""
        try:
            return self._invoke_or_crash(ctx)
        except KeyboardInterrupt:
            _stop()
        except WRONG_USAGE as error:
            if type(error).__name__ == HELP_IS_WANTED:
                raise
            _complain(told(error, ctx.meta[TYPED], ctx.invoked_subcommand))
            raise typer.Exit(UsageError.exit_status) from None
        except DrupeError as error:
            if interrupts.pending() and not isinstance(error, Cancelled):  # a library has made another error of it
                _stop()
            interrupts.answered()
            if (ctx.obj or {}).get("debug"):
                _print_stack(error)
            elif isinstance(error, PluginCrash):
                _print_own_stack(error.__cause__ or error, hinted="debug" in (ctx.obj or {}))
            _complain(error)
            raise typer.Exit(error.exit_status) from None

    def _invoke_or_crash(self, ctx: Any) -> Any:
        """Run a command. That a plugin which did not bring it ends the program is a mistake, not the command's end."""
        from drupe.api import registry
        from drupe_commands.culprit import culprit

        try:
            return super().invoke(ctx)
        except SystemExit as error:
            found = registry()
            plugin = culprit(error, found)
            if plugin is None or plugin is found.commands.find(ctx.invoked_subcommand).plugin:
                raise
            report = f"report it to the makers of {plugin.distribution}, or {plugin.removal}"
            what = f"{plugin.title} ended the program: {one_line(error)}"
            raise PluginCrash(what, where=place(error, plugin), cure=report) from error


def _stop() -> NoReturn:
    """End a command that the user has stopped."""
    interrupts.answered()
    _complain(Cancelled())
    raise typer.Exit(Cancelled.exit_status) from None


def _print_stack(error: DrupeError) -> None:
    """Where an error comes from, and out of which others; what it says is said by `_complain`."""
    from traceback import TracebackException

    told = TracebackException.from_exception(error)
    print("".join([*told.format()][: -len([*told.format_exception_only()])]), end="", file=sys.stderr)


def _print_own_stack(error: BaseException, hinted: bool) -> None:
    """The part of a traceback that is a plugin's. hinted: whether the command has the flag that shows the whole."""
    from drupe.api import registry
    from drupe_commands.culprit import WHOLE, own_traceback

    print(own_traceback(error, registry()) + (f"({WHOLE})\n" if hinted else ""), end="", file=sys.stderr)


def _complain(error: DrupeError) -> None:
    """Print an error, after what is still to be printed on standard output."""
    try:
        _flush()
    finally:
        print(f"error: {installable(str(error))}", file=sys.stderr)


app = typer.Typer(cls=Commands, rich_markup_mode=None, add_completion=False, no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        from drupe.api import KERNEL

        print(f"drupe {metadata.version(KERNEL)}")
        raise typer.Exit


Version = typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)


@app.callback(context_settings=CONTEXT)
def drupe(version: Annotated[bool, Version] = False) -> None:
    """Make a trained model small and fast on the hardware you have, and prove that it still is right."""


class _Output(io.FileIO):
    """Standard output that says once, in one line, when it takes no more; what comes after that is dropped."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if isinstance(error, BrokenPipeError):  # the reader has seen enough
                raise
            what = f"standard output cannot be written: {error.strerror}"
            raise OutputError(what, cure="give it another place") from None


class _Printed(io.TextIOWrapper):
    """Standard output as the program prints to it. It prints from one thread: what others print is not its own."""

    def write(self, text: str) -> int:
        own = threading.current_thread() is threading.main_thread()
        return super().write(text) if own else sys.stderr.write(text)


def _guard_output() -> None:
    """Make what standard output refuses an error for the user, also where it was closed before the start."""
    if sys.stderr is None:
        sys.stderr = io.StringIO()
    buffer = getattr(sys.stdout, "buffer", None)
    if sys.stdout is None:
        raw = _Output(os.open(os.devnull, os.O_RDONLY), "w")
    elif type(getattr(buffer, "raw", buffer)) is io.FileIO:  # not Windows' console
        raw = _Output(_own_output(), "w", closefd=False)
    else:
        return
    encoding = getattr(sys.stdout, "encoding", "utf-8")
    sys.stdout = _Printed(io.BufferedWriter(raw), encoding, "replace", line_buffering=raw.isatty())


def _own_output() -> int:
    """A descriptor for what the program prints; what others write to standard output goes to standard error.

    Those are libraries in machine code, child processes, and plugins that go around `sys.stdout`. A terminal shows both
    in one place, and editing a line there needs the usual descriptor.
    """
    usual = sys.stdout.fileno()
    if os.isatty(usual):
        return usual
    own = os.dup(usual)
    try:
        os.dup2(sys.stderr.fileno(), usual)
    except OSError:  # standard error was closed before the start
        os.dup2(os.open(os.devnull, os.O_WRONLY), usual)
    return own


def _flush() -> None:
    """Print what is still to be printed; a plugin's command may have closed standard output."""
    if not sys.stdout.closed:
        sys.stdout.flush()


def _run(state: dict[str, Any]) -> None:
    """Run the program to the end of its output. state: takes what a command leaves there for errors; see Making."""
    try:
        try:
            app(prog_name=PROJECT, obj=state)
        finally:
            _flush()
            if isinstance(sys.stdout, _Printed):
                sys.stdout = sys.stderr  # what plugins print when the process ends is not the program's
    except OutputError as error:
        _complain(error)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        sys.exit(1)


def main() -> None:
    """Run the program; ends the process with 0, an error's own status, or 70 for what nobody foresaw."""
    interrupts.listen()
    # pydantic looks for plugins of its own in all that is installed, and stops at what cannot be read.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a mark for what is no text here
    _guard_output()
    # The system frees all memory at once; looking for cycles in it first would take up to half a second.
    atexit.register(gc.freeze)
    state: dict[str, Any] = {}
    try:
        _run(state)
    except Exception as error:
        if interrupts.pending():
            raise KeyboardInterrupt from error
        import traceback

        from drupe.api import registry
        from drupe_commands.culprit import culprit

        plugin = culprit(error, registry())
        if state.get("debug"):
            traceback.print_exc()
        else:
            _print_own_stack(error, hinted="debug" in state)
        what = plugin.title if plugin else "drupe or in a plugin"
        print(f"This is a mistake in {what}, not in what you typed; please report it.", file=sys.stderr)
        sys.exit(UNEXPECTED)
    finally:
        interrupts.answered()
