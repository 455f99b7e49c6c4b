"""The evaluator `speed`: how fast a package reads a prompt and answers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from drupe.api import CheckFailed, Context, Evaluator, EvaluatorConfig, Metric, Model, UsageError
from drupe_decoding import Generation, Timing, text_session
from drupe_eval_quality.decoder import home
from drupe_text import Reference, Text, TextTokenizer

LARGEST = 1_000_000  # tokens


class SpeedConfig(EvaluatorConfig):
    """The prompt is the beginning of a text."""

    evaluation_data: Reference = Field(
        None, description="the text: a file, folder or data set; by default drupe's built-in short text"
    )
    prompt_tokens: int = Field(128, ge=1, le=LARGEST, description="how many tokens the prompt has")
    new_tokens: int = Field(64, ge=2, le=LARGEST, description="how many tokens the answer may have")
    repeats: int = Field(3, ge=1, le=1000, description="how many runs are made; the best one counts")


class Speed(Evaluator):
    """Prompt and decode rates in the runtime that the package is made for, each the best of several runs.

    It takes the best run, not the mean, because other programs can only make a run slower.
    """

    name = "speed"
    summary = "prompt and decode rates in tokens a second"
    Config: ClassVar[type[EvaluatorConfig]] = SpeedConfig

    def refuse(self, source: Model, config: SpeedConfig) -> None:
        raise UsageError(
            "the evaluator `speed` measures one model, and cannot compare a package with its source",
            cure="--evaluator quality; measure the finished package with drupe evaluate OUT --speed",
        )

    def evaluate(
        self, model: Model, reference: Model | None, config: SpeedConfig, context: Context
    ) -> Sequence[Metric]:
        if reference is not None:
            raise UsageError("the evaluator `speed` measures one model at a time", cure="leave the reference out")
        prompt = TextTokenizer(home(model)).prompt(Text(config.evaluation_data), config.prompt_tokens)
        timings: list[Timing] = []
        with context.open(model) as session, context.progress.task("timing", config.repeats, "run") as progress:
            writer = text_session(session)
            for _ in range(config.repeats):
                context.stop_if_cancelled()
                writer.generate(prompt, Generation(max_new_tokens=config.new_tokens))
                timings += [writer.timing] if writer.timing else []
                progress.advance(1)
        decode_rate = max((timing.decode_rate for timing in timings), default=0.0)
        if not decode_rate:
            raise CheckFailed(
                "the model ends its answer at once, so no decode rate can be measured",
                cure="use another text: --evaluation-data",
            )
        return [
            Metric("prompt_rate", max(timing.prompt_rate for timing in timings), "tokens/s", "higher"),
            Metric("decode_rate", decode_rate, "tokens/s", "higher"),
        ]
