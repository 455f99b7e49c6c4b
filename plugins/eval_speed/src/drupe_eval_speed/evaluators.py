"""The evaluators `latency`, `throughput` and `footprint`: each gives a part of one measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from drupe.api import Context, Evaluator, EvaluatorConfig, Metric, Model, registry
from drupe_eval_speed.measuring import Row, Subject, measure, subject_of
from drupe_eval_speed.quantities import FOOTPRINT, LATENCY, QUANTITIES, THROUGHPUT
from drupe_eval_speed.settings import SpeedConfig
from drupe_eval_speed.shared_rows import Rows, rows_of
from drupe_timing import spread_of

TAKEN_OVER = {"taken over": "measured before, of a package with the same graph and the same settings of its session"}
"""The detail of a metric that was not measured again."""


class _Speed(Evaluator):
    """Measures one package, in a process of its own. A metric is the median of several runs, with its spread."""

    Config: ClassVar[type[EvaluatorConfig]] = SpeedConfig
    alone: ClassVar[bool] = True

    def evaluate(
        self, model: Model, reference: Model | None, config: SpeedConfig, context: Context
    ) -> Sequence[Metric]:
        subject = subject_of(str(model.location), context.target.provider, registry())
        return self._measured([subject], config, context)[0]

    def evaluate_together(self, models: Sequence[Model], config: SpeedConfig, context: Context) -> list[list[Metric]]:
        """Measure packages in turn, each on the provider that it was made for; the metrics of each."""
        return self._measured([subject_of(str(each.location), None, registry()) for each in models], config, context)

    def _measured(self, subjects: Sequence[Subject], config: SpeedConfig, context: Context) -> list[list[Metric]]:
        loads = config.runs if "load_time" in self.metrics else 0
        found = rows_of(
            [each.model for each in subjects],
            config,
            loads,
            lambda: measure(subjects, config, context.progress, loads=loads, stop=context.stop_if_cancelled),
        )
        return [[_metric(row, its) for row in its.rows if row.quantity.name in self.metrics] for its in found]


def _metric(row: Row, found: Rows) -> Metric:
    """A row as a metric; where there are several cases, its name says which."""
    quantity = row.quantity
    name = f"{quantity.name}[{row.case.key}]" if row.case and found.several else quantity.name
    spread = spread_of(row.values[0])
    several = (spread.low, spread.high) if len(row.values[0]) > 1 else None
    return Metric(name, spread.median, quantity.unit, quantity.better, several, TAKEN_OVER if found.taken_over else {})


def _metrics_of(evaluator: str) -> dict[str, str]:
    return {name: each.meaning for name, each in QUANTITIES.items() if each.evaluator == evaluator}


class Latency(_Speed):
    """Milliseconds. Of models that write text: to the first token and between tokens. Of others: of a run."""

    name = LATENCY
    summary = "time to the first token and between tokens; for other models, the time of a run"
    metrics: ClassVar[Mapping[str, str]] = _metrics_of(LATENCY)


class Throughput(_Speed):
    """Of models that write text: tokens of the prompt and of the answer a second. Of others: runs and rows."""

    name = THROUGHPUT
    summary = "tokens, rows or runs a second"
    metrics: ClassVar[Mapping[str, str]] = _metrics_of(THROUGHPUT)


class Footprint(_Speed):
    """What a package takes."""

    name = FOOTPRINT
    summary = "load time, peak memory, size on disk, and energy where the machine counts it"
    metrics: ClassVar[Mapping[str, str]] = _metrics_of(FOOTPRINT)
