"""The evaluator `layers`: what quantizing each layer costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from drupe.api import Context, Evaluator, EvaluatorConfig, Metric, Model, ModelError, UsageError
from drupe_decoding import context_length, decoder_ports, vocabulary_size
from drupe_eval_quality.layer_costs import LayerCosts, layer_costs
from drupe_eval_quality.text_settings import TextSettings
from drupe_eval_quality.vocabularies import refuse_other_vocabulary
from drupe_layerwise import has_head
from drupe_onnx import OnnxPackage, folder_of, package_of
from drupe_text import Text, TextTokenizer

FEWEST = 16
"""How many tokens are enough where the text has no more."""


class LayersConfig(TextSettings):
    """Which text, and how much of it. All layers are compared on one piece of it."""

    tokens: int = Field(128, ge=1, le=100_000, description="how many tokens of the text the layers are run on")


class Layers(Evaluator):
    """The KL divergence from the source when one layer alone is the package's, for each layer.

    Beside it, how far the package's own hidden states behind each layer are from those of the source.
    """

    name = "layers"
    summary = "the KL divergence that each layer costs when only this layer is quantized"
    Config: ClassVar[type[EvaluatorConfig]] = LayersConfig
    metrics: ClassVar[Mapping[str, str]] = {
        "layer_divergence": "KL divergence from the reference, if only this layer is the package's",
        "hidden_error": "relative error of the package's hidden states behind this layer, with all layers before it",
        "kl_divergence": "of the whole package on the same tokens",
    }

    def refuse(self, source: Model, config: LayersConfig) -> None:
        config.model_dump()  # reads the text, for the computed fingerprint

    def evaluate(
        self, model: Model, reference: Model | None, config: LayersConfig, context: Context
    ) -> Sequence[Metric]:
        """The metrics of each layer. Raises ModelError for models that do not write text."""
        if reference is None:
            raise UsageError("layers are compared with those of another model", cure="--against MODEL")
        ours, theirs = package_of(model), package_of(reference)
        for package in (ours, theirs):
            if not has_head(package.component.graph):
                raise ModelError(
                    "the model gives hidden states and no logits, so there is no KL divergence of its layers",
                    where=model.location,
                    cure="--evaluator of its task; drupe tasks lists them",
                )
        refuse_other_vocabulary(_vocabulary(ours), _vocabulary(theirs))
        tokenizer = TextTokenizer(folder_of(model))
        beginning = tokenizer.beginning
        wanted = min(config.tokens, context_length(model) - len(beginning))
        tokens = tokenizer.tokens(
            Text(config.evaluation_data),
            wanted,
            config.seed,
            least=wanted if "tokens" in config.model_fields_set else min(wanted, FEWEST),
            fewer=lambda found: f"--tokens {found}" if found else "",
        )
        costs = layer_costs(theirs.component, ours.component, [[*beginning, *tokens]], context)
        return list(_metrics(costs))


def _vocabulary(package: OnnxPackage) -> int | None:
    return vocabulary_size(decoder_ports(package.component.graph), package.decoder)


def _metrics(costs: LayerCosts) -> Iterator[Metric]:
    for name, divergence in costs.divergence.items():
        yield Metric(f"layer_divergence[{name}]", divergence, "nats/token", "lower")
    for name, error in costs.error.items():
        yield Metric(f"hidden_error[{name}]", error, "", "lower")
    yield Metric("kl_divergence", costs.whole, "nats/token", "lower")
