"""`--evaluator NAME[:METRIC]`, given several times: who measures, and which metrics are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from drupe.api import Record, UsageError, unknown
from drupe_functions import divided, know

if TYPE_CHECKING:
    from drupe.api import Evaluator, Metric, Registry


class AskedEvaluator(Record):
    """An evaluator, and the names of the metrics that are shown; empty for all."""

    evaluator: Evaluator
    metrics: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.evaluator.name

    def chosen(self, metrics: Sequence[Metric]) -> list[Metric]:
        """Those of its metrics that are shown. Raises UsageError for one that was asked for and was not measured."""
        if not self.metrics:
            return list(metrics)
        for wanted in self.metrics:
            if not any(wanted in _names(each) for each in metrics):
                raise self._unmeasured(wanted, metrics)
        return [each for each in metrics if _names(each) & set(self.metrics)]

    def _unmeasured(self, wanted: str, metrics: Sequence[Metric]) -> UsageError:
        given = [each.name for each in metrics]
        if wanted not in self.evaluator.metrics:
            return _unknown(self.name, wanted, given)
        return UsageError(
            f"the evaluator '{self.name}' does not measure {wanted} of this package on this machine",
            where=f"--evaluator {self.name}:{wanted}",
            cure=f"it measures {', '.join(given)}" if given else "leave it out",
        )


def asked_evaluators(texts: Sequence[str], package: str, found: Registry) -> list[AskedEvaluator]:
    """What the user asks for; without that, the evaluator of the package's task. Each evaluator comes once.

    Raises UsageError for an unknown name, and where nobody is named and the task has no evaluator.
    """
    if not texts:
        return [AskedEvaluator(_of_task(package, found))]
    metrics: dict[str, list[str]] = {}
    whole = set()
    for text in texts:
        name, colon, metric = divided(text)
        if not name or (colon and not metric):
            raise UsageError(f"--evaluator takes NAME or NAME:METRIC, not '{text}'", cure="--evaluator quality")
        know(name, found)
        metrics.setdefault(name, []).extend([metric] if metric else [])
        whole |= set() if metric else {name}
    return [_asked(name, () if name in whole else tuple(wanted), found) for name, wanted in metrics.items()]


def _asked(name: str, metrics: tuple[str, ...], found: Registry) -> AskedEvaluator:
    evaluator = found.evaluators.make(name)
    for metric in metrics:
        if evaluator.metrics and metric not in evaluator.metrics:
            raise _unknown(name, metric, evaluator.metrics)
    return AskedEvaluator(evaluator, metrics)


def _of_task(package: str, found: Registry) -> Evaluator:
    from drupe.api import evaluator_of, resolve_package

    evaluator = evaluator_of("", resolve_package(package, found).task, found)
    if evaluator is None:
        raise UsageError(
            f"nothing is known to measure {package} with", cure="--evaluator NAME; drupe evaluators lists them"
        )
    return evaluator


def _unknown(evaluator: str, metric: str, known: Iterable[str]) -> UsageError:
    return unknown(f"metric of the evaluator '{evaluator}'", metric, known, where=f"--evaluator {evaluator}:{metric}")


def _names(metric: Metric) -> set[str]:
    """What a metric answers to: its whole name, and the name without a case in brackets."""
    return {metric.name, metric.name.partition("[")[0]}
