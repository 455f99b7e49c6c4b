"""Evaluating: measure a package, alone or against a reference, in the runtimes that are here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drupe.context import Context, Progress, usable_threads
from drupe.engine import prepared, run_steps
from drupe.evaluation import Metric
from drupe.model import Model
from drupe.opening import DEFAULT_PROVIDER, made_for, resolve, resolve_package, runtime_for
from drupe.plan import Request, configure
from drupe.plugins import registry
from drupe.publishing import scratch


def evaluate(
    package: str,
    against: str | None,
    name: str,
    values: Mapping[str, Any],
    provider_name: str | None,
    progress: Progress,
) -> tuple[Metric, ...]:
    """Measure on the provider that the package was made for, or on the one that is named.

    Raises RuntimeMissing where nothing here runs the package.
    """
    evaluator = registry().evaluators.make(name)
    config = configure(f"evaluator '{name}'", evaluator.Config, values)
    model = resolve_package(package)
    provider = registry().provider(provider_name or made_for(model) or DEFAULT_PROVIDER)
    target = provider.target()
    runtime_for(model, target, provider, registry())  # before anything is converted for it to be compared with
    with scratch() as folder, _comparable(against, model, provider.name) as reference:
        context = Context(
            target=target,
            scratch=folder,
            threads=usable_threads(),
            progress=progress,
            open=lambda each: runtime_for(each, target, provider, registry()).open(each, target),
        )
        return tuple(evaluator.evaluate(model, reference, config, context))


@contextmanager
def _comparable(against: str | None, model: Model, provider: str) -> Iterator[Model | None]:
    """The reference, in the kind of `model`: of another kind, such as a checkpoint, the graph that float32 makes."""
    reference = None if against is None else resolve(against, {})
    if against is None or reference is None or reference.kind == model.kind:
        yield reference
        return
    precision = registry().provider(provider).reference_precision
    with prepared(Request(against, Path(), provider, precision)) as job:
        yield run_steps(job)
