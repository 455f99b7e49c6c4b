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
from drupe_files import folder_bytes, scratch

TOGETHER = "evaluate_together"
"""The method of evaluators that measure several packages in turn."""
HEADROOM = 1.3
"""The memory that a runtime needs for a package, as a multiple of the package's size."""


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
    needed = int(HEADROOM * sum(folder_bytes(each) for each in packages))
    if target.device and target.device.memory is not None and target.device.memory < needed:
        free = target.device.memory
        raise RuntimeMissing(f"the packages need {needed >> 20} MiB of memory together, and {free >> 20} MiB are free")
    config = configure(f"evaluator '{name}'", evaluator.Config, settings)
    with scratch() as folder:
        context = Context(target=target, scratch=folder, threads=usable_threads())
        owner = found.evaluators.find(name).plugin
        measured: list[Sequence[Metric]] = call(
            owner, f"the evaluator '{name}'", getattr(evaluator, TOGETHER), models, config, context
        )
    return measured
