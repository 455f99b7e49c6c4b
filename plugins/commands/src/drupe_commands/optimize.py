"""`drupe optimize` and `drupe auto-opt`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe.api import Request, UsageError
from drupe_commands.flags import FlagApp, declared_options
from drupe_commands.making import Making, chosen_provider
from drupe_commands.parameters import (
    CHECKING,
    MODEL,
    PASSES,
    RUNNING,
    ComparedBy,
    Device,
    Force,
    ForProvider,
    JsonResult,
    LogLevel,
    ModelArgument,
    OnlyPlan,
    Output,
    Precision,
    RequireCheck,
    Threads,
    set_option,
)
from drupe_commands.settings import settings_of_passes

if TYPE_CHECKING:
    from drupe.api import Step


def optimize(
    *,
    context: typer.Context,
    model: ModelArgument = None,
    model_name_or_path: Annotated[
        str | None,
        typer.Option(
            "-m", "--model-name-or-path", metavar="<model>", help="The same, as an option.", rich_help_panel=MODEL
        ),
    ] = None,
    output_path: Output = None,
    force: Force = False,
    precision: Precision = "int4",
    provider: ForProvider = None,
    device: Device = None,
    exporter: Annotated[
        str | None,
        typer.Option(metavar="<name>", help="What turns the model into a graph.", rich_help_panel=PASSES),
    ] = None,
    passes: Annotated[
        str | None,
        typer.Option(
            metavar="<a,b,c>",
            help="The passes to run, in this order, instead of those of the recipe; drupe passes lists them.",
            rich_help_panel=PASSES,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, set_option("<name.key=value>", "Set a key of a pass, or of the evaluator", PASSES)
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify",
            help="Run the finished package, and compare it with its source.",
            rich_help_panel=CHECKING,
        ),
    ] = True,
    require_check: RequireCheck = False,
    evaluator: ComparedBy = None,
    threads: Threads = 0,
    plan: OnlyPlan = False,
    save_plan: Annotated[
        Path | None,
        typer.Option(
            metavar="<file>",
            help="Write the plan to this file; drupe run FILE repeats the run.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    as_json: JsonResult = False,
    log_level: LogLevel = 0,
    options: Mapping[str, Any],
) -> None:
    """Make a small, fast package of a model, and run it once to see that it works."""
    making = Making(context, output_path, force=force, only_plan=plan, as_json=as_json, log_level=log_level)
    reference = _one_model(model, model_name_or_path)
    request = Request(
        reference=reference,
        provider=chosen_provider(provider, device),
        precision=precision,
        options=options,
        passes=_steps(passes),
        settings=settings_of_passes(settings or ()),
        claims={"import": exporter} if exporter else {},
        evaluator=evaluator or "",
        threads=threads,
        verify=verify,
        require_check=require_check,
    )
    making.of_request(request, save_plan)


class Optimize(FlagApp):
    """The command, with the options of all installed plugins."""

    def __init__(self) -> None:
        from drupe.api import registry

        super().__init__("optimize", optimize, declared_options(registry()), registry())


class AutoOpt(FlagApp):
    """The same, under the name that Olive's users know."""

    def __init__(self) -> None:
        from drupe.api import registry

        super().__init__("auto-opt", optimize, declared_options(registry()), registry(), EPILOG)


EPILOG = (
    "This is `drupe optimize`, under the name that Olive's users know. Options may be typed with underscores "
    "(--model_name_or_path) or with dashes. docs/olive.md says what becomes of each of Olive's flags."
)


def _steps(passes: str | None) -> tuple[Step, ...]:
    """The passes that --passes names. Raises UsageError where it names none."""
    from drupe.api import Step

    if passes is None:
        return ()
    names = [name.strip() for name in passes.split(",")]
    if not all(names):
        raise UsageError(
            f"--passes '{passes}' leaves a name out", cure="--passes NAME,NAME,...; drupe passes lists the names"
        )
    return tuple(map(Step, names))


def _one_model(argument: str | None, option: str | None) -> str:
    if argument and option and argument != option:
        raise UsageError(f"two models are named: '{argument}' and '{option}'", cure="name one")
    if not (argument or option):
        raise UsageError("no model is named", cure="drupe optimize MODEL -o OUT")
    return argument or option or ""
