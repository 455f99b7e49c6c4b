"""Tasks of lm-eval: an evaluator of Olive's, and flags of its command benchmark, as settings of Drupe's evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import registry
from drupe_olive_compat.answers import Answer, changed, kept, left_out

EVALUATOR = "lm-eval"
INSTALL = "pip install 'drupe[lm-eval]'"
TYPE = "lmevaluator"
"""Olive's type of such evaluators, in lower case."""
_ONE_BY_ONE = left_out("requests are computed one at a time, in the package's own runtime, on its own device")
_NO_LOG = left_out("samples are not logged")
OPTIONS: Mapping[str, Answer] = {
    **dict.fromkeys(
        ("limit", "num_fewshot", "max_length", "apply_chat_template", "system_instruction"), kept("as lm-eval takes it")
    ),
    **dict.fromkeys(("batch_size", "device", "model_class", "model_args", "provider_options"), _ONE_BY_ONE),
    **dict.fromkeys(("sample_log_num", "sample_log_dir"), _NO_LOG),
    "bootstrap_iters": left_out("standard errors come from 100 repetitions where they need some"),
    "fewshot_as_multiturn": left_out("solved examples are turns where a chat template makes the prompts"),
}
"""What becomes of each option beside the tasks."""


def can_run() -> bool:
    """Whether the evaluator is installed."""
    return EVALUATOR in registry().evaluators


def tasks_run(names: list[str]) -> Answer:
    """The answer to tasks that are run."""
    return changed(f"lm-eval runs {', '.join(names)} on the finished package, and loads their data")


def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of Drupe's evaluator among the options of Olive's."""
    taken = {name: value for name, value in options.items() if name in OPTIONS and OPTIONS[name].handling == "kept"}
    return {"tasks": options["tasks"], **{name: value for name, value in taken.items() if value is not None}}
