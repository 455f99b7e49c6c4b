"""The evaluator `samples`: what package and source write behind a few prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from drupe.api import Context, Evaluator, EvaluatorConfig, Metric, Model, UsageError, counted
from drupe_decoding import Decoder, context_length
from drupe_eval_quality.continuing import Continuation, continuations, predictor
from drupe_eval_quality.vocabularies import refuse_other_vocabulary
from drupe_onnx import folder_of, package_of
from drupe_text import TextTokenizer
from drupe_tokenization.tokenizer_file import read_tokenizer

PROMPTS = (
    "The capital of France is",
    "Once upon a time, there was a",
    "def fibonacci(n):\n",
    "Water boils at 100 degrees because",
)
TextOf = Callable[[Sequence[int]], str]
UNFINISHED = "\ufffd"
"""What stands for the bytes of a character that is not complete."""


class SamplesConfig(EvaluatorConfig):
    """Which prompts, and how far they are continued."""

    prompts: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Field(min_length=1, max_length=100),
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    ] = Field(PROMPTS, description="texts to continue; a list, or one text")
    new_tokens: int = Field(32, ge=1, le=4096, description="how many tokens each is continued with, at most")


class Samples(Evaluator):
    """How far the package writes what its source writes, if both take the likeliest token each time.

    No chat template, and no rule of generation_config.json changes what is written.
    """

    name = "samples"
    summary = "what package and source write behind a few prompts, and from where on they differ"
    Config: ClassVar[type[EvaluatorConfig]] = SamplesConfig
    metrics: ClassVar[Mapping[str, str]] = {
        "same_tokens": "the share of the source's tokens before the first that the package writes differently"
    }

    def evaluate(
        self, model: Model, reference: Model | None, config: SamplesConfig, context: Context
    ) -> Sequence[Metric]:
        """One metric for each prompt, with the texts as its detail."""
        if reference is None:
            raise UsageError("samples are compared with those of another model", cure="--against MODEL")
        ours, theirs = package_of(model).decoder, package_of(reference).decoder
        if ours and theirs:
            refuse_other_vocabulary(ours.vocab_size, theirs.vocab_size)
        tokenizer = read_tokenizer(folder_of(model), "continue a prompt")
        beginning = TextTokenizer(folder_of(model)).beginning
        prompts = [[*beginning, *tokenizer.encode(prompt, add_special_tokens=False).ids] for prompt in config.prompts]
        room = context_length(model) - max(map(len, prompts))
        if room < 1:
            raise UsageError(
                f"the longest prompt has {counted(max(map(len, prompts)), 'token')}, and the model's context is "
                f"{context_length(model)}",
                cure="a shorter prompt",
            )
        ends = ours.eos if ours else ()
        with Decoder(model, "measured", context) as decoder, predictor(reference, context) as source:
            found = continuations(prompts, min(config.new_tokens, room), ends, decoder, source, context)

        def text_of(tokens: Sequence[int]) -> str:
            return str(tokenizer.decode(list(tokens), skip_special_tokens=False))

        return [_metric(at, *pair, text_of) for at, pair in enumerate(zip(config.prompts, found, strict=True), 1)]


def _metric(number: int, prompt: str, found: Continuation, text_of: TextOf) -> Metric:
    return Metric(
        f"same_tokens[prompt={number}]",
        found.alike / len(found.source),
        f"of {counted(len(found.source), 'token')}",
        "higher",
        detail=_detail(prompt, found, text_of),
    )


def _detail(prompt: str, found: Continuation, text_of: TextOf) -> dict[str, Any]:
    """The texts. Those of source and package are in three parts; the second is the first token that differs."""
    sides = {"source": found.source, "package": found.package}
    divided = {name: _divided(found.prompt, tokens, found.alike, text_of) for name, tokens in sides.items()}
    return {"prompt": prompt, **divided}


def _divided(prompt: Sequence[int], tokens: Sequence[int], at: int, text_of: TextOf) -> list[str]:
    """The text of tokens behind a prompt: before token number `at`, of this token, and behind it.

    A character whose bytes are in several tokens is in the part in which it becomes complete.
    """

    def text(count: int) -> str:
        return text_of([*prompt, *tokens[:count]])

    whole = text(len(tokens))
    start, stop, end = (len(text(count).rstrip(UNFINISHED)) for count in (0, at, at + 1))
    if at >= len(tokens):
        stop = end = len(whole)
    end = max(end, stop + 1)
    return [whole[start:stop], whole[stop:end], whole[end:]]
