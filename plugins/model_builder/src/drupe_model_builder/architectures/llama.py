"""Llama 2, 3, 3.1, 3.2 and 3.3, and models with the same configuration: SmolLM, SmolLM2, TinyLlama, Vicuna."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.architectures.common import decoder
from drupe_model_builder.recipe import DecoderRecipe


def llama(config: Configuration) -> DecoderRecipe:
    attention_bias = config.flag("attention_bias", False)
    return decoder(
        config,
        context_length=2048,
        kv_heads=config.integer("num_attention_heads"),
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        mlp_bias=config.flag("mlp_bias", False),
    )
