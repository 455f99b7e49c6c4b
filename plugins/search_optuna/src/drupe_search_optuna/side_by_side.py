"""Side by side: several packages are measured in turn, so that what else the machine does disturbs all alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import (
    Context,
    Metric,
    RuntimeMissing,
    call,
    configure,
    provider_of,
    registry,
    resolve_package,
    target_of,
    usable_threads,
)
from drupe_files import memory_shortage, scratch

TOGETHER = "evaluate_together"
"""The method of evaluators that measure several packages in turn."""


def measures_together(evaluator: str) -> bool:
    """Whether an evaluator can measure several packages in turn."""
    return hasattr(registry().evaluators.make(evaluator), TOGETHER)


def measured_together(name: str, settings: Mapping[str, Any], packages: Sequence[Path]) -> list[Sequence[Metric]]:
    """The metrics of each package, of an evaluator that measures them in turn.

    Raises RuntimeMissing where they do not fit into the free memory, which all of them are in at the same time.
    """
    found = registry()
    evaluator = found.evaluators.make(name)
    models = [resolve_package(str(each), found) for each in packages]
    target = target_of(provider_of(models[0], None, found), found)
    if shortage := memory_shortage(packages, target):
        needed, free = shortage
        raise RuntimeMissing(f"the packages need {needed} MiB of memory together, and {free} MiB are free")
    config = configure(f"evaluator '{name}'", evaluator.Config, settings)
    with scratch() as folder:
        context = Context(target=target, scratch=folder, threads=usable_threads())
        owner = found.evaluators.find(name).plugin
        measured: list[Sequence[Metric]] = call(
            owner, f"the evaluator '{name}'", getattr(evaluator, TOGETHER), models, config, context
        )
    return measured
