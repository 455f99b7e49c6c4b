"""Gemma 3 (`gemma3_text`): Gemma 2 without softcaps, with norms of each head's query and key, and two rotary bases.

EmbeddingGemma is a Gemma 3 whose tokens read later ones, too.
"""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block
from drupe_model_builder.configuration.reading import (
    activation,
    every,
    layer_types,
    rotary_by_type,
    sizes_of,
    sliding_window,
)
from drupe_model_builder.families.gemma2 import gemma_decoder, sandwich
from drupe_model_builder.parts.step import Layer


def gemma3_text(config: Configuration) -> Decoder:
    both_ways = config.flag("use_bidirectional_attention", False)
    sizes = sizes_of(config, context_length=131072, kv_heads=4, head_dim=256)
    gelu = activation(config, key="hidden_activation", default="gelu_pytorch_tanh")
    rotaries = rotary_by_type(
        config, sizes, sliding_theta=10_000.0, full_theta=1_000_000.0, local_key="rope_local_base_freq"
    )
    pattern = config.integer("sliding_window_pattern", config.integer("_sliding_window_pattern", 6))
    types, window = layer_types(config, every(pattern, sizes.layers)), sliding_window(config, 4096)
    if both_ways and window is not None:
        window = window // 2 + 1  # half of it on each side
    scale = config.number("query_pre_attn_scalar", 256, above=0) ** -0.5
    bias = config.flag("attention_bias", False)

    def layer(block: Block) -> Layer:
        kind = types[block.number]
        attention = block.attention(
            rotaries[kind],
            bias=bias,
            output_bias=bias,
            head_norm=True,
            scale=scale,
            window=window if kind == "sliding_attention" else None,
            both_ways=both_ways,
        )
        return sandwich(block, attention, gelu)

    return gemma_decoder(config, sizes, layer, capped=0.0)
