"""What is wrong with a command as it was typed, told as every other error is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer

from drupe.api import PROJECT, UsageError, flag, nearest, registry

WRONG_USAGE: type[Exception] = typer.BadParameter.__mro__[1]
"""typer's error for what was typed, which it gives no public name."""


def told(error: Any, typed: Iterable[str], command: str | None = None) -> UsageError:
    """The error for the user. error: typer's own; typed: the arguments, as the user typed them; command: its name."""
    path = error.ctx.command_path if error.ctx else " ".join(filter(None, (PROJECT, command)))
    cure = f"{path} --help lists what there is"
    if not hasattr(error, "possibilities"):
        message = _in_our_words(error)
        return UsageError(message[:1].lower() + message[1:], cure=cure)
    wrong = _as_typed(error.option_name, typed)
    parameters = error.ctx.command.get_params(error.ctx) if error.ctx else ()
    flags = {each for parameter in parameters for each in (*parameter.opts, *parameter.secondary_opts)}
    close = nearest(wrong.strip("-"), (each.strip("-") for each in flags if each.startswith("--")))
    meant = f"; did you mean {' or '.join(map(flag, close))}?" if close else ""
    return UsageError(f"unknown flag {wrong}{meant}{registry().why_missing(wrong)}", cure=cure)


def _in_our_words(error: Any) -> str:
    """typer's message, with the whole range for a number outside of it."""
    message: str = error.format_message().rstrip(".")
    before, found, _ = message.partition("Input should be ")
    option = getattr(error, "param", None)
    lowest, highest = getattr(option, "min", None), getattr(option, "max", None)
    if found and " than " in message and None not in (lowest, highest):
        return f"{before}it must be from {lowest:.12g} to {highest:.12g}"
    return message.replace(found or "Input should be ", "it must be ")


def _as_typed(name: str, typed: Iterable[str]) -> str:
    """A flag as the user has typed it, with underscores where there were some."""
    return next((each for arg in typed if (each := arg.partition("=")[0]).replace("_", "-") == name), name)
