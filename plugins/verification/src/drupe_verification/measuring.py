"""Measuring a package, alone or against a reference, in the installed runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import (
    Context,
    Evaluator,
    Metric,
    Model,
    PlanError,
    Progress,
    call,
    configure,
    evaluator_of,
    provider_of,
    registry,
    replace,
    resolve,
    resolve_package,
    runtime_for,
    target_of,
    usable_threads,
)
from drupe_files import scratch
from drupe_functions import know
from drupe_verification.answer import metrics_of
from drupe_verification.made_by import MadeBy, recorded_plan
from drupe_verification.other_task import refuse_other_task
from drupe_verification.reference import reference_for


def evaluate(
    package: str,
    against: str | None,
    name: str | None,
    values: Mapping[str, Any],
    provider_name: str | None,
    progress: Progress,
) -> tuple[Metric, ...]:
    """Measure with the named evaluator, or with the one of the package's task."""
    found = registry()
    task = resolve_package(package, found).task
    know(name or "", found)
    evaluator = evaluator_of(name or "", task, found)
    if evaluator is None:
        raise PlanError("the model's task has no evaluator", where=package, cure="name an evaluator")
    refuse_other_task(evaluator, task, found)
    config = configure(f"evaluator '{evaluator.name}'", evaluator.Config, values)
    plan = recorded_plan(package)
    made_by = MadeBy() if plan is None else MadeBy.of(plan, found)
    if against is None:
        return measure(package, None, evaluator, config, provider_name, progress, made_by=made_by)
    own = plan is not None and Path(plan.source.reference) == Path(against).expanduser().absolute()
    if not own:  # another model is not trained, and has no adapters
        made_by = replace(made_by, trainings=())
    reference = resolve(against, plan.source.options if plan is not None and own else {}, found)
    return measure(package, reference, evaluator, config, provider_name, progress, made_by=made_by)


def measure(
    package: str,
    against: Model | None,
    evaluator: Evaluator,
    config: Any,
    provider_name: str | None,
    progress: Progress | None = None,
    parent: str = "",
    made_by: MadeBy | None = None,
) -> tuple[Metric, ...]:
    """Measure on the named provider, or on the provider that the package was made for.

    parent: the run that this is a part of. made_by: see `reference_for`.
    Raises RuntimeMissing where no installed runtime runs the package.
    """
    found = registry()
    model = resolve_package(package, found)
    provider = provider_of(model, provider_name, found)
    target = target_of(provider, found)
    runtime_for(model, target, provider, found)  # raises its error before a reference is converted
    owner = found.evaluators.find(evaluator.name).plugin
    with scratch() as folder, reference_for(against, model, provider, found, parent, made_by or MadeBy()) as reference:
        context = Context(
            target=target,
            scratch=folder,
            threads=usable_threads(),
            progress=progress or Progress(),
            open=lambda each: runtime_for(each, target, provider, found).open(each, target),
        )
        return call(
            owner, f"the evaluator '{evaluator.name}'", metrics_of, evaluator, model, reference, config, context
        )
