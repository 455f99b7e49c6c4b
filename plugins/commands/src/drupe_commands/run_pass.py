"""`drupe run-pass`: run one pass on a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from drupe_commands.flags import FlagApp, declared_options
from drupe_commands.making import Making, chosen_provider
from drupe_commands.parameters import (
    CHECKING,
    MODEL,
    PASSES,
    Device,
    Force,
    ForProvider,
    JsonResult,
    LogLevel,
    OnlyPlan,
    Output,
    Precision,
    RequireCheck,
    Threads,
    set_option,
)
from drupe_commands.settings import settings_of


def run_pass(
    *,
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The pass; drupe passes lists them.", rich_help_panel=MODEL)
    ],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What it is run on.", rich_help_panel=MODEL)],
    output_path: Output = None,
    force: Force = False,
    precision: Precision = "int4",
    provider: ForProvider = None,
    device: Device = None,
    settings: Annotated[
        list[str] | None,
        set_option("<key=value>", "Set a key of its configuration, which drupe passes NAME lists", PASSES),
    ] = None,
    verify: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify",
            help="Run what it makes, and compare it with what it was made of.  [default: only with --require-check]",
            show_default=False,
            rich_help_panel=CHECKING,
        ),
    ] = None,
    require_check: RequireCheck = False,
    threads: Threads = 0,
    plan: OnlyPlan = False,
    as_json: JsonResult = False,
    log_level: LogLevel = 0,
    options: Mapping[str, Any],
) -> None:
    """Run one pass on a model.

    Its configuration is what the target's recipe has for it, if it has this pass; options and --set change it.
    """
    from drupe.api import Request, Step

    making = Making(context, output_path, force=force, only_plan=plan, as_json=as_json, log_level=log_level)
    config = {each.key: each.value for each in settings_of("pass", [name], settings or ())}
    request = Request(
        reference=model,
        provider=chosen_provider(provider, device),
        precision=precision,
        options=options,
        passes=(Step(name, config),),
        threads=threads,
        verify=require_check if verify is None else verify,
        require_check=require_check,
    )
    making.of_request(request)


class RunPass(FlagApp):
    """The command, with the options of all installed plugins."""

    def __init__(self) -> None:
        from drupe.api import registry

        super().__init__("run-pass", run_pass, declared_options(registry()), registry())
