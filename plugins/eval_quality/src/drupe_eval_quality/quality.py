"""The evaluator `quality`: how well a package predicts a text, and how close it stays to its source."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field, computed_field

from drupe.api import Context, Evaluator, EvaluatorConfig, Metric, Model, ModelError
from drupe_eval_quality.decoder import Decoder, home
from drupe_eval_quality.tally import Tally
from drupe_onnx import OnnxKind, OnnxPackage
from drupe_text import Reference, Text, TextTokenizer

FLOAT = 4  # bytes of a logit


class QualityConfig(EvaluatorConfig):
    """Which text, how much of it, and what was in it: the last is computed, for the record."""

    evaluation_data: Reference = Field(None, description="a text as drupe-text names it; None for the one it brings")
    tokens: int = Field(256, ge=1, description="how many tokens of it are predicted")
    length: int = Field(256, ge=1, description="how many of them in one context; then the model starts anew")
    seed: int | None = Field(None, description="which pieces of the text; None for its beginning")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def evaluation_fingerprint(self) -> str:
        """The SHA-256 of the text."""
        return Text(self.evaluation_data).fingerprint


class Quality(Evaluator):
    """KL divergence, top-1 agreement and perplexity over tokens of a text.

    Every token counts once: in each window the model starts anew, with what its tokenizer puts before a text, or
    otherwise with the token before, and predicts the window's tokens one after another.
    """

    name = "quality"
    summary = "KL divergence from the source, top-1 agreement and perplexity of a text"
    Config: ClassVar[type[EvaluatorConfig]] = QualityConfig

    def evaluate(
        self, model: Model, reference: Model | None, config: QualityConfig, context: Context
    ) -> Sequence[Metric]:
        """The divergence and the agreement are there only where there is a reference."""
        tokenizer = TextTokenizer(home(model))
        beginning = tokenizer.beginning
        needed = config.tokens + (0 if beginning else 1)
        tokens = tokenizer.tokens(Text(config.evaluation_data), needed, config.seed)
        room = min(config.length, _context_length(model) - len(beginning))
        tally = Tally()
        with contextlib.ExitStack() as stack:
            decoders = [stack.enter_context(Decoder(model, "measured", context))]
            if reference is not None:
                decoders.append(stack.enter_context(Decoder(reference, "reference", context)))
            _refuse_other_vocabulary(decoders)
            progress = stack.enter_context(context.progress.task("measuring", config.tokens, "tokens"))
            for window in _windows(tokens, beginning, room):
                for decoder in decoders:
                    decoder.reset()
                for chunk in window.chunks(_positions(decoders, context.memory_budget)):
                    context.stop_if_cancelled()
                    _count(chunk, decoders, tally)
                    progress.advance(len(chunk.targets))
        return list(_metrics(tally, reference is not None))


@dataclass(frozen=True)
class Window:
    """Tokens that go in, and what each of the last len(targets) is to be followed by."""

    inputs: Sequence[int]
    targets: Sequence[int]

    def chunks(self, size: int) -> Iterator[Window]:
        """The same, at most `size` inputs at a time."""
        unscored = len(self.inputs) - len(self.targets)
        for start in range(0, len(self.inputs), size):
            stop = start + size
            yield Window(self.inputs[start:stop], self.targets[max(0, start - unscored) : max(0, stop - unscored)])


def _windows(tokens: Sequence[int], beginning: Sequence[int], size: int) -> Iterator[Window]:
    first = 0 if beginning else 1
    for start in range(first, len(tokens), size):
        targets = tokens[start : start + size]
        lead = beginning or tokens[start - 1 : start]
        yield Window([*lead, *targets[:-1]], targets)


def _positions(decoders: Sequence[Decoder], budget: int) -> int:
    """How many positions' logits fit into the budget, those of every decoder."""
    return max(1, budget // (FLOAT * sum(decoder.vocabulary for decoder in decoders)))


def _count(chunk: Window, decoders: Sequence[Decoder], tally: Tally) -> None:
    """Run a chunk through the decoders and add up what its scored positions say."""
    rows = [decoder.logits(chunk.inputs)[len(chunk.inputs) - len(chunk.targets) :] for decoder in decoders]
    for at, token in enumerate(chunk.targets):
        tally.add(token, rows[0][at], rows[1][at] if len(rows) > 1 else None)


def _context_length(model: Model) -> int:
    package = OnnxKind().load(model).payload
    assert isinstance(package, OnnxPackage)
    return package.decoder.context_length if package.decoder else 1 << 30


def _refuse_other_vocabulary(decoders: Sequence[Decoder]) -> None:
    sizes = [decoder.vocabulary for decoder in decoders]
    if len(set(sizes)) > 1:
        raise ModelError(
            f"the package has a vocabulary of {sizes[0]}, and what it is compared with of {sizes[1]}",
            cure="compare it with the model that it was made from",
        )


def _metrics(tally: Tally, compared: bool) -> Iterator[Metric]:
    if compared:
        yield Metric("kl_divergence", max(0.0, tally.divergence / tally.positions), "nats/token", "lower")
        yield Metric("top1_agreement", tally.agreed / tally.positions, "of tokens", "higher")
    yield Metric("perplexity", tally.perplexity, "", "lower")
    if compared:
        yield Metric("reference_perplexity", tally.reference_perplexity, "", "lower")
