"""`drupe run`: carry out a plan or a workflow file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe.api import Record, UsageError, replace
from drupe_commands.documents import STANDARD_INPUT, located, read_document
from drupe_commands.fitting import with_what_fits
from drupe_commands.flags import CONTEXT, FlagCommand
from drupe_commands.foreign import Translation, lines_of, show_dry_run, translation_of, write_workflow
from drupe_commands.making import Making
from drupe_commands.messages import tell
from drupe_commands.parameters import MODEL, RUNNING, SEARCHING, Force, JsonResult, LogLevel, OnlyPlan, Output

if TYPE_CHECKING:
    from pydantic import BaseModel

    from drupe.api import Plan, Request
    from drupe_commands.searching import FoundSearch
    from drupe_commands.workflow import Workflow


IN_FILE = "target.{}: {}"
"""How a workflow file names its target."""
ALIKE = 0.75
"""How alike a key has to be to one of a plan or a workflow, from 0 to 1, to be a misspelt one."""


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
    job = _Job(file, model, making, dry_run, save_plan, {key: each for key, each in named.items() if each is not None})
    with located(file):
        translation = None if _is_ours(document) else translation_of(document, model)
    if translation is not None:
        _run_translated(translation, job)
    elif _is_plan(document, file):
        _run_plan(document, job)
    else:
        _run_document(document, job)


app = typer.Typer(rich_markup_mode=None, add_completion=False)
app.command("run", cls=FlagCommand, context_settings=CONTEXT)(run)


class _Job(Record):
    """What is to be done with a file. model: instead of the file's. executor: settings instead of the file's."""

    file: str
    model: str | None
    making: Making
    dry_run: bool
    save_plan: Path | None
    executor: Mapping[str, Any]


def _one_file(argument: str | None, option: str | None) -> str:
    if argument and option and argument != option:
        raise UsageError(f"two files are named: '{argument}' and '{option}'", cure="name one")
    if not (argument or option):
        raise UsageError("no file is named", cure="drupe run FILE -o OUT")
    file = argument or option or ""
    return STANDARD_INPUT if file == "-" else file


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON Schema of a plan or of a workflow file."""
    from drupe.api import Plan, unknown
    from drupe_commands.workflow import Workflow

    models: dict[str, type[BaseModel]] = {"plan": Plan, "workflow": Workflow}
    if kind not in models:
        raise unknown("schema", kind, models, cure="--schema plan or --schema workflow")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **models[kind].model_json_schema()}


def _is_ours(document: dict[str, Any]) -> bool:
    """Whether a document has only keys of plans or of workflows, so that no plugin is asked what it is."""
    from drupe.api import Plan
    from drupe_commands.workflow import Workflow

    keys = set(document)
    return isinstance(document.get("plan"), dict) or any(keys <= {*model.model_fields} for model in (Plan, Workflow))


def _is_plan(document: dict[str, Any], file: str) -> bool:
    """Whether a document is a plan, or holds one, rather than a workflow: by its keys."""
    from drupe.api import Plan
    from drupe_commands.workflow import Workflow

    if isinstance(document.get("plan"), dict):
        return True
    keys = set(document)
    plans, workflows = (
        [key for key in keys if get_close_matches(key, model.model_fields, 1, ALIKE)] for model in (Plan, Workflow)
    )
    if not plans and not workflows:
        named = f"the keys {', '.join(sorted(keys))}" if keys else "no keys"
        raise UsageError(
            f"the file is neither a plan nor a workflow: it has {named}",
            where=file,
            cure="a plan has source, target and passes; a workflow has model, and target, options or passes",
        )
    return "source" in keys or len(plans) > len(workflows)


def _run_translated(translation: Translation, job: _Job) -> None:
    """Carry out a file of another tool, once all that it asks for is known to be done."""
    if job.save_plan is not None:
        write_workflow(translation.needed(job.file), job.save_plan)
    if job.dry_run:
        show_dry_run(translation, job.making.as_json)
        return
    document = translation.needed(job.file)
    for line in (*lines_of(translation.notices), ""):
        tell(line)
    _run_document(document, replace(job, save_plan=None))


def _run_plan(document: dict[str, Any], job: _Job) -> None:
    from drupe.api import registry
    from drupe_commands.making import write_plan
    from drupe_commands.plan_files import plan_from

    plan = plan_from(document, job.file)
    _refuse_executor(job)
    if job.dry_run:
        print(f"a plan of Drupe, which is carried out as it is: {plan.chain}")
        return
    if job.model is not None:
        with located(job.file):
            plan = _of_another(plan, job.model)
    if job.save_plan is not None:
        write_plan(plan, job.save_plan)
    started = job.making.begin()
    with located(job.file, None if job.model else "source.reference"):
        job.making.of_plan(plan, registry().publisher().source_of(plan), started)


def _of_another(plan: Plan, model: str) -> Plan:
    """The plan for another model of the same kind and task. Raises PlanError for a model of others."""
    from drupe.api import registry

    another = plan.source.model_copy(update={"reference": model, "fingerprint": ""})
    found = registry().publisher().source_of(plan.but(source=another.model_dump()))
    return plan.but(source={"reference": model, "options": plan.source.options, **found.note()})


def _run_document(document: dict[str, Any], job: _Job) -> None:
    """Carry out a workflow, or the search that it asks for."""
    from drupe_commands.searching import search_in
    from drupe_commands.workflow import workflow_from

    if job.model is not None:
        document = {**document, "model": job.model}
    with located(job.file):
        search = search_in(document, job.file)
        if search is None:
            _refuse_executor(job)
        elif job.executor:
            document = _with_executor(document, job.executor)
            search = search_in(document, job.file)
    if search is not None and document.get("measure"):
        what = "a search measures each package with `search.evaluators`, and `measure` has no effect"
        raise UsageError(what, where=f"{job.file}, at measure", cure="name them under search.evaluators")
    if search is None:
        _run_workflow(workflow_from(document, job.file), job)
    else:
        _run_search(search, document, job)


def _refuse_executor(job: _Job) -> None:
    """Raise UsageError for settings of an executor where nothing is searched."""
    for key in job.executor:
        flag = "--executor" if key == "name" else f"--{key}"
        what = f"{flag} has no effect: it is for the trials of a search, and the file asks for none"
        raise UsageError(what, where=job.file, cure=f"leave {flag} out, or give an option several values")


def _with_executor(document: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The workflow with settings of the search's executor. Another executor has none of the file's."""
    search = document.get("search") or {}
    given = search.get("executor") or {}
    given = {"name": given} if isinstance(given, str) else given
    kept = given if settings.get("name", given.get("name")) == given.get("name") else {}
    return {**document, "search": {**search, "executor": {**kept, **settings}}}


def _run_search(search: FoundSearch, document: dict[str, Any], job: _Job) -> None:
    from drupe.api import registry
    from drupe_commands.workflow import request_of, workflow_from

    def asked(filled: dict[str, Any]) -> Request:
        with located(job.file):
            return request_of(_with_model(workflow_from(filled, job.file), job.file), registry(), job.file)

    if job.save_plan is not None:
        write_workflow(document, job.save_plan)
    if job.dry_run or job.making.only_plan:
        search.check(asked)
        search.show(job.making.as_json)
        return
    output = document.get("output")
    making = replace(job.making, output=job.making.output or (Path(output) if isinstance(output, str) else None))
    making.begin()
    with located(job.file, None if job.model else "model"):
        search.carry_out(asked, making.named_output(), making)


def _run_workflow(workflow: Workflow, job: _Job) -> None:
    from drupe.api import plan_of, registry
    from drupe_commands.measured import configured_by
    from drupe_commands.workflow import request_of

    file = job.file
    workflow = _with_model(workflow, file)
    output = job.making.output or (Path(workflow.output) if workflow.output else None)
    measure = configured_by(workflow.measure, registry(), f"{file}, at measure")
    making = replace(job.making, output=output, measure=measure)
    with located(file):
        request = request_of(workflow, registry(), file)
    if job.save_plan is not None:
        write_workflow(workflow.model_dump(mode="json", exclude_unset=True), job.save_plan)
    if job.dry_run:
        print("a workflow of Drupe, which is carried out as it is")
        return
    started = making.begin()
    with located(file, None if job.model else "model"), with_what_fits(request, IN_FILE):
        making.of_plan(*plan_of(request, registry()), started)


def _with_model(workflow: Workflow, file: str) -> Workflow:
    """The workflow. Raises UsageError where neither it nor the command line names a model."""
    if workflow.model is None:
        raise UsageError("the workflow names no model", where=f"{file}, at model", cure="--model MODEL, or a key model")
    return workflow
