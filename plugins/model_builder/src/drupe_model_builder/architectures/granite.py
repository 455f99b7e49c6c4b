"""Granite 3: Llama with factors on the embedding, the residual, the attention and the logits."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.architectures.common import decoder
from drupe_model_builder.recipe import DecoderRecipe


def granite(config: Configuration) -> DecoderRecipe:
    attention_bias = config.flag("attention_bias", False)
    return decoder(
        config,
        context_length=2048,
        kv_heads=config.integer("num_attention_heads"),
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        mlp_bias=config.flag("mlp_bias", False),
        embedding_scale=config.number("embedding_multiplier", 1.0),
        attention_scale=config.number("attention_multiplier", 1.0),
        residual_scale=config.number("residual_multiplier", 1.0),
        logits_scale=1.0 / config.number("logits_scaling", 1.0, above=0),
    )
