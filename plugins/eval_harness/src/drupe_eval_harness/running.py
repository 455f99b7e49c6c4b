"""Running tasks of lm-eval over a package, and reading its results as metrics."""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval import evaluate
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.tasks import TaskManager

from drupe.api import Context, DrupeError, Metric, Model, UsageError, nearest
from drupe_eval_harness.adapter import PackageLM
from drupe_eval_harness.settings import LmEvalConfig, Task

BOOTSTRAPS = 100
"""How often metrics that are no means are computed again for their error: lm-eval's least."""
PLAUSIBLE = 1.96
"""Standard errors on each side of a metric that hold it with 95 % confidence."""
TASK_FILES = (".yaml", ".yml")


def metrics_of(model: Model, config: LmEvalConfig, context: Context) -> list[Metric]:
    """The metrics of all tasks and groups; where there are several, a metric's name says of which."""
    assert config.tasks
    with _quiet():
        loaded = _loaded(config.tasks)
        for task in loaded["tasks"].values():
            _set_examples(task, config.num_fewshot)
        random.seed(DEFAULT_RANDOM_SEED)
        np.random.seed(DEFAULT_OTHER_SEED)
        with PackageLM(model, config, context) as lm:
            try:
                results = evaluate(
                    lm,
                    loaded,
                    limit=config.limit if config.limit is None or config.limit < 1 else int(config.limit),
                    bootstrap_iters=BOOTSTRAPS,
                    log_samples=False,
                    system_instruction=config.system_instruction,
                    apply_chat_template=config.apply_chat_template,
                    fewshot_as_multiturn=config.apply_chat_template,
                )
            except DrupeError:
                raise
            except ValueError as error:  # what lm-eval says of settings and tasks that do not go together
                raise UsageError(f"lm-eval cannot run the tasks: {_line(error)}", where="lm-eval.tasks") from error
    return list(_metrics(results))


def _loaded(tasks: tuple[Task, ...]) -> Any:
    """The tasks, with their data. Looking through all of lm-eval's own takes seconds, and files do not need it."""
    manager = TaskManager(include_defaults=not all(map(_is_own, tasks)))
    for task in tasks:
        if isinstance(task, str) and not _is_own(task) and task not in manager.all_tasks:
            close = nearest(task, manager.all_tasks)
            raise UsageError(
                f"lm-eval has no task '{task}'" + (f"; did you mean {' or '.join(close)}?" if close else ""),
                where="lm-eval.tasks",
                cure="name a task or a group of lm-eval, or the path of a task's file: FILE.yaml",
            )
        if isinstance(task, str) and _is_own(task) and not Path(task).is_file():
            raise UsageError("there is no such task file", where=task)
    try:
        return manager.load([*tasks])
    except Exception as error:  # a task may load its data from anywhere, and run Python of its own
        raise UsageError(
            f"lm-eval cannot load the tasks or their data: {_line(error)}",
            where="lm-eval.tasks",
            cure="a task file whose data is on this machine: dataset_path: json, with dataset_kwargs.data_files",
        ) from error


def _is_own(task: Task) -> bool:
    """Whether a task comes from the user: a file, or a definition."""
    return not isinstance(task, str) or Path(task).suffix in TASK_FILES


def _set_examples(task: Any, wanted: int | None) -> None:
    """Set the number of solved examples as lm-eval's own program does: a task that says 0 keeps 0."""
    stated = task.get_config("num_fewshot")
    if wanted is not None and stated != 0:
        task.set_config(key="num_fewshot", value=wanted)
    elif stated is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


def _metrics(results: Mapping[str, Any]) -> Iterator[Metric]:
    """lm-eval's results: for each task, values by "metric,filter", beside their standard errors."""
    values = results["results"]
    directions = results["higher_is_better"]
    for task, found in values.items():
        for key, value in found.items():
            name, comma, filtered = key.partition(",")
            if not comma or name.endswith("_stderr") or isinstance(value, str):
                continue
            shown = name if filtered == "none" else f"{name}:{filtered}"
            spread = _spread(value, found.get(f"{name}_stderr,{filtered}"))
            lower = directions.get(task, {}).get(name) is False
            whole = f"{shown}[{task}]" if len(values) > 1 else shown
            yield Metric(whole, value, "", "lower" if lower else "higher", spread)


def _spread(value: float, error: Any) -> tuple[float, float] | None:
    """The interval of a standard error; None where a few documents tell none."""
    if not isinstance(error, float) or not math.isfinite(error) or not error:
        return None
    return value - PLAUSIBLE * error, value + PLAUSIBLE * error


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's log: what a user has to know comes as an error."""
    log = logging.getLogger("lm_eval")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
