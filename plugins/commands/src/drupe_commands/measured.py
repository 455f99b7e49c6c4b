"""Measuring a package with several evaluators, and showing what they give."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import drupe
from drupe.api import Record, replace
from drupe_commands.asked_evaluators import AskedEvaluator, asked_evaluators

if TYPE_CHECKING:
    from drupe.api import CheckFailed, Metric, Registry

Configured = Sequence[tuple[AskedEvaluator, Mapping[str, Any]]]
"""Evaluators, each with the values of its configuration that are set."""


class Measured(Record):
    """The metrics of a package, in the order of the evaluators.

    given: all that each evaluator gave. failure: the limits that it is beyond. reason: why it could not be measured
    here.
    """

    metrics: tuple[Metric, ...]
    configured: Configured
    given: Sequence[tuple[Metric, ...]] = ()
    failure: CheckFailed | None = None
    reason: str = ""

    def document(self) -> dict[str, Any]:
        """The metrics, the spread of those that have one, and each evaluator's whole settings."""
        settings = {each.name: _settings(each, values) for each, values in self.configured}
        if self.reason:
            return {"not_measured": self.reason, "settings": settings}
        spreads = {metric.name: metric.spread for metric in self.metrics if metric.spread}
        details = {metric.name: metric.detail for metric in self.metrics if metric.detail}
        values = {metric.name: metric.value for metric in self.metrics}
        more = {name: value for name, value in (("spread", spreads), ("detail", details)) if value}
        return {**values, **more, "settings": settings}

    def keep(self, package: str, against: str | None) -> None:
        """Keep what was measured in the package's record. A package that could not be measured keeps nothing."""
        from drupe_files.kept_measurements import keep_measurements, measurement_by

        if not self.reason:
            pairs = zip(self.configured, self.given, strict=True)
            made = [measurement_by(each.evaluator, values, given, against) for (each, values), given in pairs]
            keep_measurements(Path(package), made)

    def show(self) -> None:
        """Print the metrics as a table."""
        from drupe_console import figure, table

        if self.reason:
            print(f"not measured here: {self.reason}")
            return
        spread = any(each.spread for each in self.metrics)
        rows = [
            (each.name.replace("_", " "), figure(each.value), each.unit, each.better, *_spread(each, spread))
            for each in self.metrics
        ]
        table(rows, ("metric", "value", "unit", "better", *(["spread"] if spread else [])))
        for each in self.metrics:
            if each.detail:
                print(f"\n{each.name.replace('_', ' ')}")
                table((f"  {name}", json.dumps(value, ensure_ascii=False)) for name, value in each.detail.items())


def measured_with(configured: Configured, package: str, against: str | None, provider: str | None = None) -> Measured:
    """Measure a package. against: what those evaluators are given that take a reference.

    Raises CheckFailed where one fails without metrics.
    """
    from drupe.api import CheckFailed
    from drupe_console import progress

    measured: list[tuple[AskedEvaluator, tuple[Metric, ...]]] = []
    failures: list[CheckFailed] = []
    for each, values in configured:
        reference = None if each.evaluator.alone else against
        try:
            given: tuple[Metric, ...] = drupe.evaluate(
                package, reference, evaluator=each.name, provider=provider, progress=progress(lines=False), **values
            )
        except CheckFailed as error:
            if not error.metrics:
                raise
            failures.append(error)
            given = error.metrics
        measured.append((each, given))
    chosen = [(each, each.chosen(given)) for each, given in measured]
    return Measured(tuple(_told_apart(chosen)), configured, [given for _, given in measured], _together(failures))


def _together(failures: Sequence[CheckFailed]) -> CheckFailed | None:
    """The errors of several evaluators as one; None where there are none."""
    from drupe.api import CheckFailed

    if len(failures) < 2:
        return next(iter(failures), None)
    first = failures[0]
    cures = dict.fromkeys(each.cure for each in failures if each.cure)
    metrics = [metric for each in failures for metric in each.metrics]
    what = "; ".join(each.what for each in failures)
    return CheckFailed(what, where=first.where, cure="; ".join(cures) or None, metrics=metrics)


def measured_here(configured: Configured, package: str, against: str) -> Measured:
    """Measure a package that was just made. One that this machine cannot run is not measured, and says so."""
    from drupe.api import RuntimeMissing

    try:
        return measured_with(configured, package, against)
    except RuntimeMissing as error:
        return Measured((), configured, reason=error.what)


def configured_by(measure: Mapping[str, Mapping[str, Any]], found: Registry, place: str) -> Configured:
    """What a workflow measures: "NAME" or "NAME:METRIC", with settings. Raises UsageError that names the place."""
    from drupe.api import UsageError, configure
    from drupe_functions import divided

    texts = list(measure)
    try:
        asked = asked_evaluators(texts, "", found) if texts else []
        values: dict[str, dict[str, Any]] = {each.name: {} for each in asked}
        for text, settings in measure.items():
            values[divided(text)[0]].update(settings)
        for each in asked:
            configure(f"evaluator '{each.name}'", each.evaluator.Config, values[each.name])
    except UsageError as error:
        error.where = place
        raise
    return [(each, values[each.name]) for each in asked]


def _settings(asked: AskedEvaluator, values: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluator's whole configuration."""
    from drupe.api import configure

    config = configure(f"evaluator '{asked.name}'", asked.evaluator.Config, values)
    whole: dict[str, Any] = config.model_dump(mode="json")
    return whole


def _told_apart(measured: Iterable[tuple[AskedEvaluator, Sequence[Metric]]]) -> list[Metric]:
    """All metrics. Where two evaluators have one of the same name, the names of both begin with the evaluator's."""
    pairs = [(asked, metric) for asked, metrics in measured for metric in metrics]
    times = Counter(metric.name for _, metric in pairs)
    return [
        replace(metric, name=f"{asked.name}:{metric.name}") if times[metric.name] > 1 else metric
        for asked, metric in pairs
    ]


def _spread(metric: Metric, shown: bool) -> list[str]:
    """The cell of the column of spreads, where there is one."""
    from drupe_console import figure

    return [" to ".join(map(figure, metric.spread or ()))] if shown else []
