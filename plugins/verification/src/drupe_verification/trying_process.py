"""The process that tries a package: opens it, has it do its task, and compares it with its source."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from drupe.api import (
    CheckFailed,
    DrupeError,
    Model,
    ModelError,
    PlanError,
    Registry,
    RuntimeMissing,
    Session,
    call,
    configure,
    registry,
    resolve,
    target_of,
)
from drupe_processes.parent import Answer, Orders, run_as_child
from drupe_verification.made_by import MadeBy
from drupe_verification.measuring import measure
from drupe_verification.switched_adapters import compared_each, try_each

MAX_LENGTH = 64
"""Room for prompt and answer, in tokens. It is small, because runtimes allocate memory for all of it."""


def work(orders: Orders, answer: Answer) -> None:
    """The child's work."""
    try:
        answer(tried(next(orders)))
    except DrupeError as error:
        answer({**error.document(), "where": None})  # the folder does not exist any more when this is read


def tried(orders: Mapping[str, Any]) -> dict[str, Any]:
    """Open the package, try it, compare it with its source; returns the fields of Check."""
    found = registry()
    package = resolve(orders["package"], {}, found).but(task=orders["task"])
    provider = found.provider(orders["provider"])
    task, owner = found.tasks.make(orders["task"]), found.tasks.find(orders["task"]).plugin
    runtime = found.runtimes.make(orders["runtime"])
    opened = runtime.open(package, target_of(provider, found), max_length=MAX_LENGTH)
    if not isinstance(opened, Session):
        raise CheckFailed(f"{runtime.name} gave {opened!r} in place of an open session")
    with opened as session:
        missing = [name for name in task.offers if not hasattr(session, name)]
        if missing:
            raise CheckFailed(f"{runtime.name} opens the package, but its session does not offer {', '.join(missing)}")
        check = partial(call, owner, f"check() of the task '{task.name}'", task.check, session, package)
        text = check()
        try_each(session, package, check)
    return {"text": text, **_compare_all(orders, package, found)}


def _compare_all(orders: Mapping[str, Any], package: Model, found: Registry) -> dict[str, Any]:
    """The comparison with the source; of a package with adapters, also of each adapter."""
    source = Model.from_note(orders["source"], Path(orders["source"]["location"]))
    compare = partial(_compare, orders, found)
    return compared_each(package, source, compare, compare(orders["package"], source))


def _compare(orders: Mapping[str, Any], found: Registry, package: str, source: Model) -> dict[str, Any]:
    name = orders["evaluator"]
    if name is None:
        own = found.tasks.make(orders["task"]).evaluator
        why = (
            f"no evaluator '{own}' is installed"
            if own
            else f"no evaluator compares models of the task '{orders['task']}'"
        )
        return {"not_compared": why}
    evaluator = found.evaluators.make(name)
    config = configure(f"evaluator '{name}'", evaluator.Config, orders["config"])
    try:
        metrics = measure(
            package,
            source,
            evaluator,
            config,
            orders["provider"],
            parent=orders["run"],
            made_by=MadeBy.from_json(orders["made_by"]),
        )
    except (ModelError, PlanError, RuntimeMissing) as reason:
        return {"not_compared": reason.what}
    return {
        "metrics": {metric.name: metric.value for metric in metrics},
        "units": {metric.name: metric.unit for metric in metrics if metric.unit},
        "settings": config.model_dump(mode="json"),
    }


if __name__ == "__main__":
    run_as_child(work)
