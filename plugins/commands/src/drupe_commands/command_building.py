"""Building a command of the program out of what a plugin brings."""

from __future__ import annotations

import inspect
from typing import Any

import typer


def as_command(name: str, found: Any) -> Any:
    """A typer app, a class of one, or a function with typer annotations, as a command. Raises TypeError for others."""
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
    app.command(name)(found)
    return typer.main.get_command(app)
