"""The jobs that `import drupe` offers: plan, optimize, run, evaluate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from drupe.contracts.context import Progress
from drupe.contracts.main_job import Outcome
from drupe.opening import default_provider, target_of
from drupe.registry import Registry, registry
from drupe.resolving import from_environment, resolve
from drupe.values.event import Metric
from drupe.values.model import Model
from drupe.values.option import given
from drupe.values.plan import Plan
from drupe.values.recipe import Request, Step

REQUEST = ("provider", "precision", "threads", "verify", "require_check", "evaluator", "settings")
"""The fields of a request that are no plugin's option."""


def optimize(
    reference: str | Path, output: str | Path, *, force: bool = False, progress: Progress | None = None, **options: Any
) -> Outcome:
    """Make a package of a model: what `plan` with the same arguments says, carried out.

    Raises drupe.api.DrupeError for anything that the caller can mend; `output` is then untouched.
    """
    started, found = time.perf_counter(), registry()
    plan, source = plan_of(request_of(reference, options), found)
    return found.publisher().carry_out(plan, source, Path(output), force=force, progress=progress, started=started)


def plan(reference: str | Path, **options: Any) -> Plan:
    """The plan that `optimize` would carry out; it can be changed (see its methods), saved as JSON, and run.

    options: provider, precision, threads, verify, require_check, evaluator, exporter, passes (names or
    drupe.api.Step), settings (keys of a pass or of the evaluator, by its name); and every option that installed
    plugins declare (quality, block_size, evaluation_data, revision, ...), as `drupe optimize --help` lists them.
    """
    return plan_of(request_of(reference, options), registry())[0]


def run(plan: Plan, output: str | Path, *, force: bool = False, progress: Progress | None = None) -> Outcome:
    """Carry out a plan; see `plan`. Raises drupe.api.PlanError, before the work, for what cannot be repeated here."""
    started, publisher = time.perf_counter(), registry().publisher()
    source = publisher.source_of(plan)
    return publisher.carry_out(plan, source, Path(output), force=force, progress=progress, started=started)


def evaluate(
    package: str | Path,
    against: str | Path | None = None,
    *,
    evaluator: str | None = None,
    provider: str | None = None,
    progress: Progress | None = None,
    **config: Any,
) -> tuple[Metric, ...]:
    """Measure a package, with the evaluator of its task unless another is named.

    For text that is "quality": the perplexity of a text; against a reference, KL divergence and agreement.
    against: a package; or a checkpoint, which is run in floats, layer by layer.
    config: the evaluator's settings (evaluation_data, tokens, length, seed for "quality").
    """
    verifier = registry().verifiers.needed("measures packages", "drupe-verification")
    reference = None if against is None else str(against)
    return verifier.evaluate(
        str(package), reference, evaluator=evaluator, config=given(config.items()), provider=provider, progress=progress
    )


def request_of(reference: str | Path, options: dict[str, Any]) -> Request:
    """What a caller's keyword arguments ask for: the request's own fields by name, all else as plugins' options."""
    asked = given(options.items())
    own = {name: asked.pop(name) for name in REQUEST if name in asked}
    claims = {"import": asked.pop("exporter")} if "exporter" in asked else {}
    if isinstance(passes := asked.pop("passes", ()), list | tuple):  # Request refuses anything else
        passes = tuple(Step(each) if isinstance(each, str) else each for each in passes)
    name = str(reference) if isinstance(reference, Path) else reference
    return Request(name, options=asked, claims=claims, passes=passes, **own)


def plan_of(request: Request, found: Registry) -> tuple[Plan, Model]:
    """The plan for a request, and the source that it is for."""
    finding = {name for name, option in found.options.items() if option.source}
    given_for_it = {name: value for name, value in request.options.items() if name in finding}
    for name, value in given_for_it.items():
        found.options[name].refuse(value)  # before a plugin reads it
    source = resolve(request.reference, {**from_environment(finding, found), **given_for_it}, found)
    provider = found.provider(request.provider) if request.provider else default_provider(found)
    return found.planner().compose(request, source, provider, target_of(provider, found)), source
