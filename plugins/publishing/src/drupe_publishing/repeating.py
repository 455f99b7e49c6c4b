"""Repeating: making a plan repeatable, and refusing a plan that would not give the same result."""

from __future__ import annotations

from drupe.api import (
    Model,
    Plan,
    PlanError,
    PlannedSource,
    Registry,
    UsageError,
    from_environment,
    resolve,
    usable_threads,
)


def fixed_plan(plan: Plan, source: Model, found: Registry) -> Plan:
    """The plan with the source's fingerprint and the number of threads, which make it repeatable."""
    fingerprint = found.kinds.make(source.kind).fingerprint(source, thorough=False)
    fixed_source = plan.source.model_copy(update={"fingerprint": fingerprint})
    return plan.model_copy(update={"source": fixed_source, "threads": plan.threads or usable_threads()})


def source_of(plan: Plan, found: Registry) -> Model:
    """The source that a plan names, after a check that the plan would give the same result here."""
    _refuse_no_plan(plan)
    _refuse_other_versions(plan, found)
    wanted, at = plan.source, plan.source.reference
    secrets = {name for name, option in found.options.items() if option.source and option.secret}
    source = resolve(at, {**wanted.options, **from_environment(secrets, found)}, found)
    _refuse_misfit(wanted, source)
    if wanted.fingerprint and found.kinds.make(source.kind).fingerprint(source, thorough=False) != wanted.fingerprint:
        raise PlanError(
            "the source has changed since the plan was made",
            where=at,
            cure="make a plan for the model as it is now: drupe optimize MODEL --save-plan FILE",
        )
    return source


def _refuse_no_plan(plan: object) -> None:
    """Raise UsageError for a file's name, or another value, in place of a plan."""
    if not isinstance(plan, Plan):
        raise UsageError(
            f"a plan is wanted, not {plan!r}",
            cure="drupe.plan(MODEL, ...) makes one, drupe.api.Plan.model_validate_json(TEXT) reads a saved one",
        )


def _refuse_misfit(wanted: PlannedSource, source: Model) -> None:
    """Raise PlanError for a source of another kind than the plan was made for, or for another task."""
    misfit = ""
    if wanted.kind and wanted.kind != source.kind:
        misfit = f"a model of kind '{wanted.kind}', but this one is of kind '{source.kind}'"
    elif wanted.task and wanted.task != source.task:
        own = f"this model is for '{source.task}'" if source.task else "the task of this model is not known"
        misfit = f"the task '{wanted.task}', but {own}"
    if misfit:
        raise PlanError(
            f"the plan was made for {misfit}",
            where=wanted.reference,
            cure="make a plan for this model: drupe optimize MODEL --save-plan FILE",
        )


def _refuse_other_versions(plan: Plan, found: Registry) -> None:
    """Raise PlanError where a plugin or pass of the plan is missing or has another version."""
    installed = {plugin.distribution: plugin for plugin in found.plugins}
    for name, version in plan.plugins.items():
        plugin = installed.get(name)
        if plugin is not None and plugin.version == version and not plugin.reason:
            continue
        here = "it is not installed" if plugin is None else plugin.reason or f"{plugin.version} is installed"
        mend = plugin.cure if plugin is not None and plugin.version == version else f"pip install {name}=={version}"
        raise PlanError(
            f"the plan was made with {name} {version}, but {here}: the result could differ",
            cure=f"{mend}, or take the key {name} out of the plan's 'plugins'",
        )
    for each in plan.passes:
        revision = found.passes.find(each.name).resolve().revision if each.revision else 0
        if revision != each.revision:
            raise PlanError(
                f"the plan was made with revision {each.revision} of the pass '{each.name}', but revision {revision} "
                "is installed: the result could differ",
                cure=f"install the {each.brought_by or 'plugin'} that the plan was made with, or take the key revision "
                "out of that pass",
            )
