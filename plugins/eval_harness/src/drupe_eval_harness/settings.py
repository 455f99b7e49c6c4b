"""LmEvalConfig: which tasks are solved, on how many of their documents, and how prompts are made."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, computed_field

from drupe.api import EvaluatorConfig, installed_version

DISTRIBUTION = "lm-eval"


def _listed(value: Any) -> Any:
    """One task, or several with commas between them, as a list."""
    if isinstance(value, str):
        return [each.strip() for each in value.split(",") if each.strip()]
    return [value] if isinstance(value, dict) else value


Task = str | dict[str, Any]
Tasks = Annotated[tuple[Task, ...], Field(min_length=1, max_length=1000), BeforeValidator(_listed)]


class LmEvalConfig(EvaluatorConfig):
    """The settings are those of lm-eval, with its names."""

    tasks: Tasks | None = Field(
        None, description="names of lm-eval's tasks and groups, or paths of task files (.yaml); commas between them"
    )
    limit: Annotated[float, Field(gt=0)] | None = Field(
        None, description="how many documents of each task are used; below 1, which share of them; by default all"
    )
    num_fewshot: int | None = Field(
        None, ge=0, description="how many solved examples stand before each document; by default as the task says"
    )
    apply_chat_template: bool = Field(False, description="make prompts with the model's chat template")
    system_instruction: str | None = Field(None, description="a text that stands before each prompt")
    max_length: int | None = Field(
        None, ge=2, description="tokens of a context; longer prompts lose their beginning; by default the model's"
    )
    max_gen_toks: int = Field(256, ge=1, description="tokens of an answer, where the task does not say")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def lm_eval(self) -> str | None:
        """The version of lm-eval, which decides what a task is; None where it is not installed."""
        return installed_version([DISTRIBUTION])
