"""EuroBERT: Llama whose tokens read later ones, too."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.directions import both_ways
from drupe_model_builder.configuration.reading import without_effect
from drupe_model_builder.families.llama import llama


def eurobert(config: Configuration) -> Decoder:
    without_effect(config, "classifier_pooling")
    return both_ways(llama(config.with_defaults({"rms_norm_eps": 1e-5, "max_position_embeddings": 8192})))
