"""Flags: what a command takes, its own and one for each option that a plugin declares, under headings in its help."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from drupe.api import Option, UsageError, flag, given, one_line

if TYPE_CHECKING:
    from drupe.api import Registry

HEADINGS = ("Model and output", "Target", "Quantization", "Calibration", "Comparing with the source")
"""The first headings, in this order; those of other plugins follow, and the command's own come last."""
LAST = ("Passes", "Checking", "Running and printing")

FIRST_COLUMN = 24
"""Characters of a flag in the help; after a longer one, a new line begins."""


class FlagApp(typer.Typer):
    """A command as a typer app: a function with annotated parameters, and `options`.

    options: those of plugins that it takes; the function is given what the user gave of them, by name.
    An option cannot have a flag that the command has itself: its owner is told so.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., None],
        options: Iterable[Option],
        found: Registry,
        epilog: str | None = None,
    ) -> None:
        super().__init__(rich_markup_mode=None, add_completion=False)
        accepted: dict[str, Option] = {}
        for option in options:
            if wrong := option_problem(option, name, function, found):
                found.owners[option.name][0][1].remark(f"cannot have its option {option.flag}: {wrong}")
            else:
                accepted[option.name] = option

        def command(**values: Any) -> None:
            chosen = given((name, values.pop(name)) for name in accepted)
            for name, value in chosen.items():
                _refuse_wrong_value(accepted[name], value, found)
            function(**values, options=chosen)

        self.command(name, cls=FlagCommand, epilog=epilog)(
            _with_signature(command, [*_own(function), *map(_parameter, accepted.values())], function.__doc__)
        )


class FlagCommand(TyperCommand):
    """A command whose options stand under headings in its help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                heading = getattr(parameter, "rich_help_panel", None) or LAST[-1]
                shown = parameter.metavar if parameter.param_type_name == "argument" else record[0]
                sections.setdefault(heading, []).append((shown or record[0], record[1]))
        others = [heading for heading in sections if heading not in HEADINGS + LAST]
        for heading in (*HEADINGS, *others, *LAST):
            if heading in sections:
                with formatter.section(heading):
                    formatter.write_dl(sections[heading], col_max=FIRST_COLUMN)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises UsageError for an option with an empty text, which would be taken for one that is not given.

        As a path, an empty text is the working folder.
        """
        for before, each in itertools.pairwise(["", *args]):
            typed = before if not each else each.removesuffix("=")
            if typed.startswith("-") and "=" not in typed and typed != each:
                raise UsageError(f"{typed} is empty", cure=f"leave {typed} out, or give it a value")
        rest: list[str] = super().parse_args(ctx, args)
        return rest


def option_problem(option: Option, name: str, function: Callable[..., None], found: Registry) -> str:
    """Why the command `name` cannot have an option of a third party's; empty where it can."""
    if found.owners[option.name][0][1].shipped:
        return ""
    if clash := sorted(flags_of(option) & own_flags(function)):
        return f"drupe {name} has a flag {clash[0]} of its own"
    if option.name in (parameter.name for parameter in _own(function)):
        return f"drupe {name} has an argument of that name"
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    try:
        app.command()(_with_signature(lambda **values: None, [_parameter(option)], None))
        typer.main.get_command(app)
    except Exception as error:  # typer documents no class of errors
        return one_line(error)
    return ""


@functools.cache
def own_flags(function: Callable[..., None]) -> set[str]:
    """The flags of a command's own parameters."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command()(_with_signature(lambda **values: None, _own(function), None))
    built = typer.main.get_command(app)
    return {"--help", *(each for parameter in built.params for each in (*parameter.opts, *parameter.secondary_opts))}


def flags_of(option: Option) -> set[str]:
    """What a user can type for an option."""
    return {flag(name) for name in option.flags}


def _own(function: Callable[..., None]) -> list[inspect.Parameter]:
    """The parameters of a command but for `options`."""
    parameters = inspect.signature(function, eval_str=True).parameters
    return [parameter for name, parameter in parameters.items() if name != "options"]


def _with_signature(
    function: Callable[..., None], parameters: Iterable[inspect.Parameter], text: str | None
) -> Callable[..., None]:
    """A function as typer reads it: with these parameters, and this text as its help."""
    function.__signature__ = inspect.Signature(list(parameters))  # type: ignore[attr-defined]
    function.__annotations__ = {}
    function.__doc__ = text
    return function


def _parameter(option: Option) -> inspect.Parameter:
    """An option as a parameter with typer's annotation; None stands for one that is not given."""
    kind = list[option.type] if option.multiple else option.type  # type: ignore[name-defined]
    info = typer.Option(
        f"{option.flag}/{flag(option.off)}" if option.off else option.flag,
        help=_help(option),
        metavar=f"<{'|'.join(option.choices) or option.type.__name__.lower()}>" if option.type is not bool else None,
        show_default=False,
        rich_help_panel=option.group or "Other options",
    )
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info]
    )


def _help(option: Option) -> str:
    """What it is, what holds without it, and what else has to be there for it."""
    also = [f"needs {option.needs}"] if option.needs else []
    also += [f"default: {option.default}"] if option.default else []
    also += [f"also set by {option.environment} in the environment"] if option.environment else []
    return f"{option.help}  [{'; '.join(also)}]" if also else option.help


def declared_options(found: Registry) -> list[Option]:
    """The options of all plugins, in the order in which they are declared."""
    return [found.options[name] for name in found.owners if name in found.options]


def _refuse_wrong_value(option: Option, value: Any, found: Registry) -> None:
    """Raise UsageError for a value that is none of the option's choices, before a model is looked for.

    A plugin can bring choices, so the error names the plugins that are not in use.
    """
    try:
        option.refuse(value)
    except UsageError as error:
        error.what += found.why_missing(option.name)
        raise
