"""The task of grading apples, and the evaluator that compares grades."""

from __future__ import annotations

from typing import ClassVar

from drupe.api import CheckFailed, Evaluator, EvaluatorConfig, Metric, Model, Task, registry


class Grading(Task):
    """Models that turn rows of numbers, one row for each apple, into grades."""

    name = "grading"
    summary = "gives apples grades"
    evaluator = "grades"

    def samples(self, model, target, seed=0, sizes=None):
        import numpy as np

        return {"model": {"apples": np.random.default_rng(seed).standard_normal((8, 64), np.float32)}}

    def check(self, session, model):
        import numpy as np

        grades = session.run(self.samples(model, None)["model"])["grades"]
        if not np.isfinite(grades).all():
            raise CheckFailed("some apples get no grade")
        return f"{len(grades)} apples graded"


class GradesConfig(EvaluatorConfig):
    """The limit for the difference from the source's grades; None for no limit."""

    most_apart: float | None = None


class Grades(Evaluator):
    """Measures the largest difference from the source's grades, relative to the largest grade."""

    name = "grades"
    summary = "how far grades are from those of the source"
    Config = GradesConfig
    options: ClassVar = {"most_apart": "most_apart"}
    verifying: ClassVar = {"most_apart": 1.0}

    def evaluate(self, model, reference, config, context):
        import numpy as np

        folder = context.scratch / "source"
        folder.mkdir()
        registry().kinds.make(reference.kind).save(reference, folder, context)
        apples = Grading().samples(model, context.target)["model"]
        grades = []
        for each in (model, Model("onnx", folder, reference.parts, task=reference.task)):
            with context.open(each) as session:
                grades.append(session.run(apples)["grades"])
        apart = float(np.abs(grades[0] - grades[1]).max() / np.abs(grades[1]).max())
        if config.most_apart is not None and apart > config.most_apart:
            raise CheckFailed(f"grades are {apart:.3f} apart, more than {config.most_apart}")
        return [Metric("apart", apart, "of the largest grade", "lower")]
