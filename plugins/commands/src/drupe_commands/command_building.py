"""Building a command of the program out of what a plugin brings."""

from __future__ import annotations

import inspect
from typing import Any

import typer

HELP = {"help_option_names": ["-h", "--help"]}


def as_command(name: str, found: Any) -> Any:
    """A typer app, a class of one, or a function with typer annotations, as a command.

    The long options of a function may be typed with underscores. Raises TypeError for what is none of these.
    """
    if isinstance(found, type):
        found = found()
    if isinstance(found, typer.Typer):
        command = typer.main.get_command(found)
        command.name = name
        return command
    if not callable(found):
        raise TypeError("it is neither a function nor a typer app")
    if inspect.iscoroutinefunction(found):
        raise TypeError("it is an async function, which nobody awaits")
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(name, context_settings={**HELP, "token_normalize_func": lambda option: option.replace("_", "-")})(found)
    return typer.main.get_command(app)
