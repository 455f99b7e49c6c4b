"""Planning the closing check: which evaluator compares the package with its source, and with which settings."""

from __future__ import annotations

from collections.abc import Collection

from drupe.api import Evaluator, Model, PlannedCheck, Request, configure, evaluator_of, flag, registry


def plan_check(source: Model, request: Request) -> tuple[PlannedCheck, Collection[str]]:
    """The check of a package of `source`, and the options that it depends on."""
    evaluator = evaluator_of(request.evaluator, source.task, registry())
    if evaluator is None:
        return PlannedCheck(run=request.verify, required=request.require_check), ()
    reads = evaluator.options.values()
    if not request.verify:
        return PlannedCheck(run=False), reads
    given = {key: request.options[name] for key, name in evaluator.options.items() if name in request.options}
    named = {key: flag(name) for key, name in evaluator.options.items()}
    config = configure(_owner(evaluator), evaluator.Config, {**evaluator.verifying, **given}, named)
    stated = config.model_dump(mode="json", round_trip=True, exclude_unset=True)
    return PlannedCheck(required=request.require_check, evaluator=evaluator.name, config=stated), reads


def refuse_unmeasurable(source: Model, planned: PlannedCheck) -> None:
    """Raise the error of a comparison that could not be made. Only settings that the user gave are checked."""
    if planned.evaluator is None:
        return
    evaluator = registry().evaluators.make(planned.evaluator)
    if set(planned.config) - set(evaluator.verifying):
        evaluator.refuse(source, configure(_owner(evaluator), evaluator.Config, planned.config))


def _owner(evaluator: Evaluator) -> str:
    return f"evaluator '{evaluator.name}'"
