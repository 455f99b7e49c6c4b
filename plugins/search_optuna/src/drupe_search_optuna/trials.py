"""Trials: making a package with certain values, and measuring it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import drupe
from drupe.api import Cancelled, DrupeError, Metric, Model, Plan, Request, UsageError, plan_of, registry

OWN_UNITS = {"bytes": "bytes", "conversion_seconds": "s"}
"""Metrics that need no evaluator, of which less is better, and their units."""


@dataclass(frozen=True)
class Trial:
    """A trial that has ended. values: by the name of the parameter. reason: why it has no metrics.

    number: from 1 on. main: the first metric of each evaluator. plan: as JSON; empty where there is none.
    cure: what would mend the reason, where that is known.
    """

    number: int
    values: Mapping[str, Any]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    main: tuple[str, ...] = ()
    reason: str = ""
    cure: str = ""
    seconds: float = 0.0
    plan: Mapping[str, Any] = field(default_factory=dict)

    @property
    def worked(self) -> bool:
        return not self.reason

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "metrics": {name: asdict(metric) for name, metric in self.metrics.items()}}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Trial:
        metrics = {name: Metric(**metric) for name, metric in document["metrics"].items()}
        return cls(**{**document, "metrics": metrics, "main": tuple(document["main"])})


class Measuring:
    """Makes and measures packages. request_of: what a workflow with these values asks for."""

    def __init__(
        self,
        request_of: Callable[[Mapping[str, Any]], Request],
        evaluators: Mapping[str, Mapping[str, Any]],
        folder: Path,
    ) -> None:
        self._request_of = request_of
        self._evaluators = evaluators
        self._folder = folder
        self._comparisons: dict[str, Sequence[Metric]] = {}

    def trial(self, number: int, values: Mapping[str, Any]) -> Trial:
        """Make and measure one package, which is removed afterwards: its plan makes the same one again.

        An error that a user can understand becomes the reason of a trial without metrics.
        """
        started = time.perf_counter()
        metrics: dict[str, Metric] = {}
        main: list[str] = []
        plan: Plan | None = None
        reason = cure = ""
        try:
            plan, source = self._planned(values)
            metrics, main = self._measured(plan, source, self._folder / "package")
        except Cancelled:
            raise
        except DrupeError as error:
            reason, cure = error.what, error.cure or ""
        finally:
            shutil.rmtree(self._folder / "package", ignore_errors=True)
        told = {} if plan is None else plan.model_dump(mode="json")
        seconds = round(time.perf_counter() - started, 3)
        return Trial(number, dict(values), metrics, tuple(main), reason, cure, seconds, told)

    def refuse_changed(self, earlier: Trial, values: Mapping[str, Any]) -> None:
        """Raise UsageError where the model is no longer the one that an earlier trial with these values was made of."""
        plan, _ = self._planned(values)
        if earlier.plan and plan.source.fingerprint != earlier.plan["source"]["fingerprint"]:
            raise UsageError(
                "the model has changed since the trials of the study were made",
                where=str(self._folder),
                cure="name another output folder, or remove that one",
            )

    def _planned(self, values: Mapping[str, Any]) -> tuple[Plan, Model]:
        """The plan for these values, with what makes it repeatable, and its source."""
        plan, source = plan_of(self._request_of(values), registry())
        return registry().publisher().fixed(plan, source), source

    def _measured(self, plan: Plan, source: Model, package: Path) -> tuple[dict[str, Metric], list[str]]:
        """The metrics of a package, and the first one of each evaluator."""
        unchecked = plan.but(check={"run": False})
        outcome = registry().publisher().carry_out(unchecked, source, package, force=True)
        own = {"bytes": float(outcome.bytes), "conversion_seconds": outcome.conversion_seconds}
        found = {name: Metric(name, own[name], unit, "lower") for name, unit in OWN_UNITS.items()}
        main: list[str] = []
        for name, config, compared in self._runs(plan):
            measured = (
                self._compared(plan, package, name, config)
                if compared
                else drupe.evaluate(package, evaluator=name, **config)
            )
            main += [metric.name for metric in measured[:1]]
            found |= {metric.name: metric for metric in measured}
        return found, main

    def _compared(self, plan: Plan, package: Path, name: str, config: Mapping[str, Any]) -> Sequence[Metric]:
        """What a comparison with the source gives. Packages that differ in threads only compute the same."""
        key = json.dumps([name, config, plan.but(threads=0).model_dump(mode="json")], sort_keys=True, default=str)
        if key not in self._comparisons:
            self._comparisons[key] = drupe.evaluate(package, plan.source.reference, evaluator=name, **config)
        return self._comparisons[key]

    def _runs(self, plan: Plan) -> list[tuple[str, Mapping[str, Any], bool]]:
        """Which evaluators run: name, settings, and whether they compare with the source."""
        check, runs = plan.check, []
        if check.evaluator is not None:
            runs.append((check.evaluator, {**check.config, **self._evaluators.get(check.evaluator, {})}, True))
        others = {name: config for name, config in self._evaluators.items() if name != check.evaluator}
        return [*runs, *((name, config, False) for name, config in others.items())]


def impossible(
    request_of: Callable[[Mapping[str, Any]], Request], alternatives: list[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], DrupeError]]:
    """Those of some values for which no plan can be composed, with the reason.

    Raises the first reason where that are all of them. A value that is wrong by itself is an error in any case: no
    trial with it could work.
    """
    found: list[tuple[Mapping[str, Any], DrupeError]] = []
    for values in alternatives:
        request = request_of(values)
        try:
            plan_of(request, registry())
        except DrupeError as error:
            found.append((values, error))
    if found and len(found) == len(alternatives):
        raise found[0][1]
    return found
