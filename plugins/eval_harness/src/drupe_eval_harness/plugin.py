"""The entry module of drupe-eval-harness: the evaluator `lm-eval`."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_evaluators() -> list[Ref]:
    return [
        Ref(
            "lm-eval",
            "drupe_eval_harness.evaluator:LmEval",
            "accuracy and other metrics of lm-eval's tasks, and of your own",
        )
    ]
