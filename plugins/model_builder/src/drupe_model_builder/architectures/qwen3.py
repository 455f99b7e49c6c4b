"""Qwen3: Qwen2 with an RMS norm on each head's query and key, and no bias unless the configuration asks for it."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.architectures.common import decoder
from drupe_model_builder.architectures.qwen2 import windows
from drupe_model_builder.recipe import DecoderRecipe


def qwen3(config: Configuration) -> DecoderRecipe:
    attention_bias = config.flag("attention_bias", False)
    return decoder(
        config,
        context_length=32768,
        kv_heads=32,
        head_dim=128,
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        qk_norm=True,
        windows=windows(config),
    )
