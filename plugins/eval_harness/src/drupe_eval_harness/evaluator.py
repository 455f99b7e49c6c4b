"""The evaluator `lm-eval`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import ClassVar

from drupe.api import Context, Evaluator, EvaluatorConfig, Metric, Model, RuntimeMissing, UsageError
from drupe_eval_harness.settings import LmEvalConfig

INSTALL = "pip install 'drupe[lm-eval]'"


class LmEval(Evaluator):
    """The metrics of tasks of lm-eval, with the package as the model. lm-eval is imported when it measures."""

    name = "lm-eval"
    summary = "accuracy and other metrics of lm-eval's tasks, and of your own"
    Config: ClassVar[type[EvaluatorConfig]] = LmEvalConfig
    alone: ClassVar[bool] = True

    def evaluate(
        self, model: Model, reference: Model | None, config: LmEvalConfig, context: Context
    ) -> Sequence[Metric]:
        """The metrics of all tasks. Raises UsageError for a task that lm-eval does not know, or cannot load."""
        if not config.tasks:
            cure = "--set lm-eval.tasks=hellaswag, or a task file: FILE.yaml"
            raise UsageError("no task is named", where="lm-eval.tasks", cure=cure)
        if find_spec("lm_eval") is None:
            raise RuntimeMissing("lm-eval is not installed", cure=INSTALL)
        from drupe_eval_harness.running import metrics_of

        return metrics_of(model, config, context)
