"""The task `feature-extraction`: models that give embeddings of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from drupe.api import CheckFailed, Model, RuntimeMissing, Session, Target, Task, UsageError, counted

if TYPE_CHECKING:
    from drupe_onnx import OnnxPackage

TEXTS = ("The quick brown fox", "Embeddings of texts that mean the same are alike.")
SAMPLE_TOKENS = 8
VOCABULARY = 100
"""Tokens that sample inputs are drawn from where the graph does not say how many there are."""


class FeatureExtraction(Task):
    """Models of one part with the inputs input_ids and attention_mask, and the output last_hidden_state.

    Where it is known how tokens are pooled, the output sentence_embedding holds one embedding for each text.
    """

    name = "feature-extraction"
    summary = "gives embeddings of texts"
    evaluator = "embeddings"
    offers: ClassVar[Mapping[str, str]] = {"embed": "gives the embedding of each text"}

    def samples(
        self, model: Model, target: Target, seed: int = 0, sizes: Mapping[str, int] | None = None
    ) -> Mapping[str, Mapping[str, Any]]:
        """Random tokens, by default [1, 8], with their mask, for models of the kind `onnx`.

        Raises UsageError for more tokens than the model reads.
        """
        from drupe_onnx import package_of

        package = package_of(model)
        inputs = _random_tokens(package, seed, sizes)
        length, most = next(iter(inputs.values())).shape[1], package.context_length
        if most is not None and length > most:
            what = f"a text of {counted(length, 'token')} is longer than the model's context of {most}"
            raise UsageError(what, where=model.location, cure=f"texts of at most {counted(most, 'token')}")
        return {next(iter(model.parts)): inputs}

    def check(self, session: Session, model: Model) -> str:
        """Embed two texts; says what came of it. Raises CheckFailed where a value is not finite."""
        import numpy

        from drupe_decoding import HIDDEN_STATES
        from drupe_embedding import EmbeddingSession, description_of
        from drupe_onnx import package_of

        description = description_of(package_of(model).component)
        if description is not None and description.modes:
            if not isinstance(session, EmbeddingSession):  # another runtime may do more with the package
                raise RuntimeMissing("the runtime opens the package, and gives no embeddings of texts with it")
            given = session.embed(TEXTS)
            told = f"gives embeddings of {given.shape[-1]} values"
        else:
            given = session.run(_random_tokens(package_of(model)), [HIDDEN_STATES])[HIDDEN_STATES]
            told = f"gives hidden states of {given.shape[-1]} values"
        if not numpy.isfinite(given).all():
            raise CheckFailed(
                "the package computes NaN or Inf",
                cure="check whether the source gives finite numbers: very large weights overflow",
            )
        return told


def _random_tokens(package: OnnxPackage, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
    import numpy

    from drupe_decoding import MASK, TOKENS, token_shape

    vocabulary = package.decoder.vocab_size if package.decoder else VOCABULARY
    tokens = numpy.random.default_rng(seed).integers(0, vocabulary, token_shape(sizes, SAMPLE_TOKENS))
    return {TOKENS: tokens, MASK: numpy.ones_like(tokens)}
