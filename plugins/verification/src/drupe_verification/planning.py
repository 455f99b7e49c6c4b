"""Planning the closing check: which evaluator compares the package with its source, and with which settings."""

from __future__ import annotations

from collections.abc import Collection

from drupe.api import (
    Evaluator,
    Model,
    PlannedCheck,
    Registry,
    Request,
    UsageError,
    configure,
    evaluator_of,
    flag,
    registry,
)
from drupe_verification.other_task import refuse_other_task


def plan_check(source: Model, request: Request) -> tuple[PlannedCheck, Collection[str]]:
    """The check of a package of `source`, and the options that it depends on."""
    if not (request.verify or _options_of_evaluators(registry()) & set(request.options)):
        return PlannedCheck(run=False), ()
    evaluator = evaluator_of(request.evaluator, source.task, registry())
    if evaluator is None:
        return PlannedCheck(run=request.verify, required=request.require_check), ()
    if request.evaluator:
        refuse_other_task(evaluator, source.task, registry())
    reads = evaluator.options.values()
    if not request.verify:
        return PlannedCheck(run=False), reads
    given = {key: request.options[name] for key, name in evaluator.options.items() if name in request.options}
    own = request.settings.get(evaluator.name, {})
    named = {key: flag(name) for key, name in evaluator.options.items()}
    named |= {key: f"--set {evaluator.name}.{key}" for key in own}
    config = configure(_owner(evaluator), evaluator.Config, {**evaluator.verifying, **given, **own}, named)
    stated = config.model_dump(mode="json", round_trip=True, exclude_unset=True)
    return PlannedCheck(required=request.require_check, evaluator=evaluator.name, config=stated), reads


def refuse_unmeasurable(source: Model, planned: PlannedCheck) -> None:
    """Raise the error of a comparison that could not be made. Only settings that the user gave are checked."""
    if planned.evaluator is None:
        return
    evaluator = registry().evaluators.make(planned.evaluator)
    own = evaluator_of("", source.task, registry())
    if own is None or own.name != evaluator.name or set(planned.config) - set(evaluator.verifying):
        _refuse_alone(evaluator)
        evaluator.refuse(source, configure(_owner(evaluator), evaluator.Config, planned.config))


def _refuse_alone(evaluator: Evaluator) -> None:
    """Raise UsageError for an evaluator that measures one model only: the closing check compares two."""
    if evaluator.alone:
        raise UsageError(
            f"the evaluator '{evaluator.name}' measures one model, and cannot compare a package with its source",
            cure=f"leave it out; measure the finished package with drupe evaluate OUT --evaluator {evaluator.name}",
        )


def _options_of_evaluators(found: Registry) -> set[str]:
    """The options of plugins that bring evaluators: known without importing an evaluator, which takes memory."""
    plugins = [entry.plugin for entry in found.evaluators]
    return {
        name
        for name, declared in found.owners.items()
        if any(plugin in plugins and not option.extends for option, plugin in declared)
    }


def _owner(evaluator: Evaluator) -> str:
    return f"evaluator '{evaluator.name}'"
