"""Carrying out what a file asks for: its plan, its workflow, or the search that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import Record, UsageError, replace
from drupe_commands.documents import located
from drupe_commands.fitting import with_what_fits
from drupe_commands.foreign import Translation, lines_of, show_dry_run, write_workflow
from drupe_commands.making import Making
from drupe_commands.messages import tell

if TYPE_CHECKING:
    from drupe.api import Plan, Request
    from drupe_commands.searching import FoundSearch
    from drupe_commands.workflow import Workflow

IN_FILE = "target.{}: {}"
"""How a workflow file names its target."""


class FileJob(Record):
    """What is to be done with a file. model: instead of the file's. executor: settings instead of the file's."""

    file: str
    model: str | None
    making: Making
    dry_run: bool
    save_plan: Path | None
    executor: Mapping[str, Any]


def run_translated(translation: Translation, job: FileJob) -> None:
    """Carry out a file of another tool, once all that it asks for is known to be done."""
    if job.save_plan is not None:
        write_workflow(translation.needed(job.file), job.save_plan)
    if job.dry_run:
        show_dry_run(translation, job.making.as_json)
        return
    document = translation.needed(job.file)
    for line in (*lines_of(translation.notices), ""):
        tell(line)
    run_document(document, replace(job, save_plan=None))


def run_plan(document: dict[str, Any], job: FileJob) -> None:
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


def run_document(document: dict[str, Any], job: FileJob) -> None:
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


def _refuse_executor(job: FileJob) -> None:
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


def _run_search(search: FoundSearch, document: dict[str, Any], job: FileJob) -> None:
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


def _run_workflow(workflow: Workflow, job: FileJob) -> None:
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
