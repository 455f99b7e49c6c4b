"""`drupe run`: carry out a plan or a workflow file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from drupe.api import UsageError
from drupe_commands.document_kinds import is_ours, is_plan, schema_of
from drupe_commands.documents import STANDARD_INPUT, located, read_document
from drupe_commands.file_jobs import FileJob, run_document, run_plan, run_translated
from drupe_commands.flags import FlagCommand
from drupe_commands.foreign import translation_of
from drupe_commands.making import Making
from drupe_commands.parameters import MODEL, RUNNING, SEARCHING, Force, JsonResult, LogLevel, OnlyPlan, Output


def run(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="A plan (a drupe.json, or what --save-plan and --plan --json write) or a workflow file, of Drupe or "
            "of a tool that a plugin reads, such as Olive; JSON, YAML or TOML; - for standard input.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", "--run-config", metavar="<file>", help="The same, as an option.", rich_help_panel=MODEL
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            "--model-name-or-path",
            metavar="<model>",
            help="Run it on this model instead of the one in the file.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    output_path: Output = None,
    force: Force = False,
    plan: OnlyPlan = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only say what is made of each line of the file; no model is looked for.",
            rich_help_panel=RUNNING,
        ),
    ] = False,
    executor: Annotated[
        str | None,
        typer.Option(
            metavar="<name>",
            help="What runs the trials of a search, instead of this process: local, ray, or what else is installed.",
            rich_help_panel=SEARCHING,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="<address>", help="Of the executor's cluster.", rich_help_panel=SEARCHING),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="<int>", min=1, help="How many trials run beside each other.", rich_help_panel=SEARCHING),
    ] = None,
    save_plan: Annotated[
        Path | None,
        typer.Option(
            metavar="<file>",
            help="Write the file's plan or workflow to this file, as Drupe's own.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    as_json: JsonResult = False,
    log_level: LogLevel = 0,
    schema: Annotated[
        str | None,
        typer.Option(
            metavar="<plan|workflow>", help="Print the JSON Schema of such a file, and end.", rich_help_panel=RUNNING
        ),
    ] = None,
) -> None:
    """Carry out a plan or a workflow file: the whole job, as drupe optimize does it.

    A plan repeats a run: it makes the same bytes, or says before the work why it would not. Paths in the file are
    relative to the working directory, as on the command line.
    """
    if schema is not None:
        print(json.dumps(schema_of(schema), indent=1))
        return
    file = _one_file(file, config)
    document = read_document(file)
    making = Making(context, output_path, force=force, only_plan=plan, as_json=as_json, log_level=log_level)
    named = {"name": executor, "address": address, "workers": workers}
    job = FileJob(
        file, model, making, dry_run, save_plan, {key: each for key, each in named.items() if each is not None}
    )
    with located(file):
        translation = None if is_ours(document) else translation_of(document, model)
    if translation is not None:
        run_translated(translation, job)
    elif is_plan(document, file):
        run_plan(document, job)
    else:
        run_document(document, job)


app = typer.Typer(rich_markup_mode=None, add_completion=False)
app.command("run", cls=FlagCommand)(run)


def _one_file(argument: str | None, option: str | None) -> str:
    if argument and option and argument != option:
        raise UsageError(f"two files are named: '{argument}' and '{option}'", cure="name one")
    if not (argument or option):
        raise UsageError("no file is named", cure="drupe run FILE -o OUT")
    file = argument or option or ""
    return STANDARD_INPUT if file == "-" else file
