"""Whether an evaluator fits a model: one that is the own evaluator of tasks measures models for these tasks only."""

from __future__ import annotations

from drupe.api import Evaluator, Registry, UsageError, evaluator_of


def refuse_other_task(evaluator: Evaluator, task: str | None, found: Registry) -> None:
    """Raise UsageError for an evaluator that belongs to other tasks than the model's. Others measure any model."""
    own = evaluator_of("", task, found)
    if own is None or own.name == evaluator.name:
        return
    tasks = [entry.ref.name for entry in found.tasks if found.tasks.make(entry.ref.name).evaluator == evaluator.name]
    if tasks:
        raise UsageError(
            f"the evaluator '{evaluator.name}' measures models of the task {' or '.join(tasks)}, and this one is of "
            f"the task {task}",
            cure=f"--evaluator {own.name}, or leave --evaluator out",
        )
