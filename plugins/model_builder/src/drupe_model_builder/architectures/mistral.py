"""Mistral 7B and Mistral Nemo: Llama without biases, and with a sliding window unless the configuration says null."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.architectures.common import decoder, layer_count, sliding_window
from drupe_model_builder.recipe import DecoderRecipe


def mistral(config: Configuration) -> DecoderRecipe:
    window = sliding_window(config, 4096)
    return decoder(
        config,
        context_length=131072,
        kv_heads=8,
        windows=(window,) * layer_count(config),
    )
