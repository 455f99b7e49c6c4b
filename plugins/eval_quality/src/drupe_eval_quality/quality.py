"""The evaluator `quality`: how well a package predicts a text, and how close it stays to its source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from drupe.api import Context, Evaluator, EvaluatorConfig, Metric, Model, ModelError
from drupe_decoding import Decoder, context_length
from drupe_eval_quality.divergence_limit import refuse_divergence, refuse_without_reference
from drupe_eval_quality.kept_logits import FLOAT, found_logits, keeping, with_rows
from drupe_eval_quality.position_sums import PositionSums
from drupe_eval_quality.text_settings import TextSettings
from drupe_eval_quality.text_windows import (
    Chunk,
    Window,
    alone,
    key_of_logits,
    run_to_head,
    windows_of,
    with_graph,
    with_package,
)
from drupe_eval_quality.vocabularies import refuse_other_vocabulary
from drupe_onnx import OnnxKind, OnnxPackage, folder_of
from drupe_text import Text, TextTokenizer
from drupe_tokenization.tokenizer_file import FILE as TOKENIZER

ENOUGH, FEWEST = 256, 32
"""How many tokens are compared by default, and how many are enough if the text is shorter and no number is given."""
BROKEN = 2.0
"""The KL divergence, in nats a token, above which a package counts as broken. README.md has the measurements."""


class QualityConfig(TextSettings):
    """Which text, and how much of it."""

    tokens: int = Field(
        ENOUGH, ge=1, description=f"how many tokens are predicted; by default {ENOUGH}, or fewer if the text is shorter"
    )
    length: int = Field(256, ge=1, le=1_000_000, description="how many tokens are predicted in one context")
    max_kl: float | None = Field(
        None, gt=0, le=100, description="the largest accepted KL divergence, in nats a token; a larger one fails"
    )


class Quality(Evaluator):
    """KL divergence, top-1 agreement and perplexity over tokens of a text.

    Every token counts once. In each window the model starts with empty caches. It first reads the tokens that its
    tokenizer puts before a text, or if there are none, the token before the window. Then it predicts the window's
    tokens one after another.
    """

    name = "quality"
    summary = "KL divergence from the source, top-1 agreement and perplexity of a text"
    Config: ClassVar[type[EvaluatorConfig]] = QualityConfig
    options: ClassVar[Mapping[str, str]] = {
        name: name for name in ("evaluation_data", "tokens", "length", "seed", "max_kl")
    }
    verifying: ClassVar[Mapping[str, Any]] = {"max_kl": BROKEN}
    metrics: ClassVar[Mapping[str, str]] = {
        "kl_divergence": "from the reference, the mean over all tokens",
        "top1_agreement": "the share of tokens that package and reference predict alike",
        "perplexity": "of the text, under the package",
        "reference_perplexity": "of the text, under the reference",
    }

    def refuse(self, source: Model, config: QualityConfig) -> None:
        """Raise an error for a text that cannot be read, or that is too short if the source has a tokenizer.json."""
        config.model_dump()  # reads the text, for the computed fingerprint
        if (folder_of(source) / TOKENIZER).is_file():
            tokenizer = TextTokenizer(folder_of(source))
            _tokens(tokenizer, config, 0 if tokenizer.beginning else 1)

    def evaluate(
        self, model: Model, reference: Model | None, config: QualityConfig, context: Context
    ) -> Sequence[Metric]:
        """The metrics; divergence and agreement only if there is a reference.

        A reference with a payload is a graph that was not written. It is run layer by layer.
        """
        refuse_without_reference(config.max_kl, reference)
        model = OnnxKind().load(model)
        tokenizer = TextTokenizer(folder_of(model))
        beginning = tokenizer.beginning
        tokens = _tokens(tokenizer, config, 0 if beginning else 1)
        windows = windows_of(tokens, beginning, min(config.length, context_length(model) - len(beginning)))
        tally = PositionSums()
        with contextlib.ExitStack() as stack:
            source: Callable[[int], Iterator[Chunk]] | None = None
            if reference is not None and isinstance(reference.payload, OnnxPackage):
                refuse_other_vocabulary(_vocabulary(model), _vocabulary(reference))
                source = _source(reference, windows, context, stack)
            measured = stack.enter_context(Decoder(model, "measured", context))
            positions = _positions(measured, 1 if reference is None else 2, context.memory_budget)
            if source is not None:
                chunks = source(positions)
            elif reference is not None:
                chunks = with_package(windows, positions, stack.enter_context(Decoder(reference, "reference", context)))
            else:
                chunks = alone(windows, positions)
            predicted = sum(len(window.targets) for window in windows)
            progress = stack.enter_context(context.progress.task("measuring", predicted, "token"))
            for chunk in chunks:
                context.stop_if_cancelled()
                _count(chunk, measured, tally)
                progress.advance(len(chunk.targets))
        metrics = list(_metrics(tally, reference is not None))
        refuse_divergence(metrics, config.max_kl)
        return metrics


def _source(
    reference: Model, windows: Sequence[Window], context: Context, stack: contextlib.ExitStack
) -> Callable[[int], Iterator[Chunk]]:
    """What gives the chunks of a reference that is a graph, by the number of positions that are held at a time.

    The graph is run up to its head now, unless its logits were kept. An error of the graph says whose it is.
    """
    try:
        key = key_of_logits(reference.payload, windows, context)
        rows = found_logits(key)
        if rows is not None:
            return lambda positions: with_rows(windows, positions, rows)
        layers = stack.enter_context(run_to_head(reference, windows, key, context))
    except ModelError as error:
        error.where = error.where or str(reference.location)
        raise
    return lambda positions: keeping(with_graph(windows, positions, layers), windows, key)


def _tokens(tokenizer: TextTokenizer, config: QualityConfig, before: int) -> list[int]:
    """The tokens to predict, and `before` tokens before them; a short text gives fewer if no number was given."""
    return tokenizer.tokens(
        Text(config.evaluation_data),
        config.tokens + before,
        config.seed,
        least=before + (config.tokens if "tokens" in config.model_fields_set else FEWEST),
        fewer=lambda found: f"--tokens {found - before}" if found > before else "",
        reason="the first one is only read, and each of the others is predicted" if before else "",
    )


def _positions(decoder: Decoder, models: int, budget: int) -> int:
    """For how many positions the logits of all models together fit into the budget."""
    return max(1, budget // (FLOAT * decoder.vocabulary * models))


def _count(chunk: Chunk, measured: Decoder, tally: PositionSums) -> None:
    """Run a chunk through the package and add its scored positions to the sums."""
    if chunk.rows is not None:
        refuse_other_vocabulary(measured.vocabulary, chunk.rows.shape[-1])
    if not chunk.start:
        measured.reset()
    rows = measured.logits(chunk.inputs)
    first = len(chunk.inputs) - len(chunk.targets)
    for at, token in enumerate(chunk.targets, first):
        tally.add(token, rows[at], None if chunk.rows is None else chunk.rows[at])


def _vocabulary(model: Model) -> int | None:
    """The vocabulary size in a decoder's description; None where it has no description."""
    decoder = model.payload.decoder
    return decoder.vocab_size if decoder else None


def _metrics(tally: PositionSums, compared: bool) -> Iterator[Metric]:
    if compared:
        yield Metric("kl_divergence", max(0.0, tally.divergence / tally.positions), "nats/token", "lower")
        yield Metric("top1_agreement", tally.agreed / tally.positions, "of tokens", "higher")
    yield Metric("perplexity", tally.perplexity, "", "lower")
    if compared:
        yield Metric("reference_perplexity", tally.reference_perplexity, "", "lower")
