"""The evaluator `embeddings`: how close a package's embeddings are to those of its source."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from drupe.api import CheckFailed, Context, Evaluator, EvaluatorConfig, Metric, Model, ModelError, UsageError
from drupe_decoding import HIDDEN_STATES, MASK, TOKENS
from drupe_embedding import SENTENCE_EMBEDDING, EmbeddingDescription, description_of, pooled
from drupe_feature_extraction.layers import layers_in_numpy
from drupe_layerwise import LayerByLayer
from drupe_onnx import OnnxPackage, folder_of, package_of
from drupe_text import Reference, Text, TextTokenizer
from drupe_tokenization.tokenizer_file import FILE as TOKENIZER

if TYPE_CHECKING:
    pass

BROKEN = 0.5
"""The mean cosine similarity below which a package counts as broken."""
FEWEST_TOKENS = 32
Vectors = NDArray[np.float32]


class EmbeddingsConfig(EvaluatorConfig):
    """Which text is cut into pieces, and how many."""

    evaluation_data: Reference = Field(
        None, description="the text: a file, folder or data set; by default drupe's built-in short text"
    )
    texts: int = Field(
        24, ge=2, le=1_000_000, description="how many pieces of the text are embedded; fewer if the text is shorter"
    )
    text_tokens: int = Field(32, ge=1, le=1_000_000, description="how many tokens a piece has")
    seed: int | None = Field(
        None, ge=0, description="a number that chooses pieces of the text; by default its beginning"
    )
    min_cosine: float | None = Field(
        None, gt=-1, le=1, description="the smallest accepted mean cosine similarity; a smaller one fails"
    )


class Embeddings(Evaluator):
    """Cosine similarity and relative error of embeddings, and how often the nearest text is the source's nearest.

    A reference is run layer by layer, and its hidden states are pooled in numpy. Where a package pools no tokens, the
    hidden states of tokens are compared.
    """

    name = "embeddings"
    summary = "cosine similarity of embeddings with the source's, and agreement on nearest texts"
    Config: ClassVar[type[EvaluatorConfig]] = EmbeddingsConfig
    options: ClassVar[Mapping[str, str]] = {
        "evaluation_data": "evaluation_data", "seed": "seed", "min_cosine": "min_cosine"
    }  # fmt: skip
    verifying: ClassVar[Mapping[str, Any]] = {"min_cosine": BROKEN}

    metrics: ClassVar[Mapping[str, str]] = {
        "cosine_similarity": "with the reference's embeddings, the mean over all texts",
        "smallest_cosine": "the smallest of these similarities",
        "relative_error": "the length of the difference from the reference's embedding, relative to that",
        "top1_agreement": "the share of texts whose nearest other text is the same as with the reference",
    }

    def refuse(self, source: Model, config: EmbeddingsConfig) -> None:
        """Raise an error for a text that cannot be read, or that is too short if the source has a tokenizer.json."""
        Text(config.evaluation_data).read()
        if (folder_of(source) / TOKENIZER).is_file():
            _sequences(TextTokenizer(folder_of(source)), config)

    def evaluate(
        self, model: Model, reference: Model | None, config: EmbeddingsConfig, context: Context
    ) -> Sequence[Metric]:
        if reference is None:
            raise UsageError(
                "embeddings are measured against those of another model",
                where=str(model.location),
                cure="--against MODEL: the checkpoint that the package was made of, or another package",
            )
        package = package_of(model)
        description = description_of(package.component) or EmbeddingDescription()
        sequences = _sequences(TextTokenizer(folder_of(model)), config)
        with ExitStack() as stack:
            progress = stack.enter_context(context.progress.task("measuring", len(sequences), "text"))
            ours, theirs = [], []
            given = _ofpackage_of(model, description, sequences, context)
            for measured, expected in zip(given, _of(reference, description, sequences, context), strict=True):
                context.stop_if_cancelled()
                if measured.shape != expected.shape:
                    raise ModelError(
                        f"the package gives vectors of {measured.shape[-1]} values, but the reference of "
                        f"{expected.shape[-1]}",
                        cure="compare the package with the model that it was made from",
                    )
                ours.append(measured)
                theirs.append(expected)
                progress.advance(1)
        metrics = list(_metrics(np.concatenate(ours), np.concatenate(theirs), texts=bool(description.modes)))
        _refuse_distance(metrics, config.min_cosine)
        return metrics


def _of(
    reference: Model, description: EmbeddingDescription, sequences: Sequence[Sequence[int]], context: Context
) -> Iterator[Vectors]:
    """The reference's vectors of each text, pooled as the package pools."""
    if not isinstance(reference.payload, OnnxPackage):
        yield from _ofpackage_of(reference, description, sequences, context)
        return
    with LayerByLayer(reference.payload.component, sequences, context) as layers:
        *before, _ = layers.segments
        with context.progress.task("running the source", len(before), "layer") as progress:
            for segment in before:
                layers.advance(segment)
                progress.advance(1)
        dense = layers_in_numpy(reference.payload) if description.modes else []
        for _, chunks in itertools.groupby(layers.logits(), lambda each: each.sequence):
            hidden = np.concatenate([each.rows for each in chunks])
            if description.modes:
                hidden = pooled(hidden, description.modes, dense, normalized=description.normalized)[None]
            yield hidden


def _ofpackage_of(
    model: Model, description: EmbeddingDescription, sequences: Sequence[Sequence[int]], context: Context
) -> Iterator[Vectors]:
    """A package's embedding [1, dimension] of each text; the hidden states of its tokens where nothing pools them."""
    output = SENTENCE_EMBEDDING if description.modes else HIDDEN_STATES
    with context.open(model) as session:
        for sequence in sequences:
            tokens = np.array([sequence], np.int64)
            found = session.run({TOKENS: tokens, MASK: np.ones_like(tokens)}, [output])[output]
            yield found.reshape(-1, found.shape[-1])


def _sequences(tokenizer: TextTokenizer, config: EmbeddingsConfig) -> list[list[int]]:
    """The tokens of each text, with those that the tokenizer puts before and behind one."""
    around = len(tokenizer.beginning)
    found = tokenizer.sequences(
        Text(config.evaluation_data), config.texts, config.text_tokens + around, config.seed, least=FEWEST_TOKENS
    )
    return [[*sequence, *tokenizer.end] for sequence in found]


def _metrics(ours: Vectors, theirs: Vectors, *, texts: bool) -> Iterator[Metric]:
    """ours, theirs: [texts, dimension]; of tokens where `texts` is false."""
    one, other = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    errors = np.linalg.norm(one - other, axis=1) / np.maximum(np.linalg.norm(other, axis=1), np.finfo(np.float64).tiny)
    yield Metric("cosine_similarity", float(cosines.mean()), "", "higher")
    yield Metric("smallest_cosine", float(cosines.min()), "", "higher")
    yield Metric("relative_error", float(errors.mean()), "", "lower")
    if texts:
        agreed = float((_nearest(one) == _nearest(other)).mean())
        yield Metric("top1_agreement", agreed, "of texts", "higher")


def _nearest(vectors: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each text, the other text whose embedding is nearest by cosine similarity."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    nearest: NDArray[np.intp] = alike.argmax(1)
    return nearest


def _refuse_distance(metrics: Sequence[Metric], limit: float | None) -> None:
    """Raise CheckFailed, with the metrics, for a mean cosine similarity below the limit."""
    found = next(metric.value for metric in metrics if metric.name == "cosine_similarity")
    if limit is not None and found < limit:
        raise CheckFailed(
            f"the cosine similarity with the source's embeddings is {found:.4g}, below the limit of {limit:g} "
            "(--min-cosine)",
            cure="make the package with --quality best, with more bytes (--target-size) or at a higher --precision; or "
            "allow less with --min-cosine",
            metrics=metrics,
        )
