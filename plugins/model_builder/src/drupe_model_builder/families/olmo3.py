"""OLMo 3: OLMo 2 with sliding windows, whose full layers alone have a scaled rotary embedding."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import (
    activation,
    every,
    layer_types,
    rotary_by_type,
    sizes_of,
    sliding_window,
)
from drupe_model_builder.families.olmo2 import normed_attention
from drupe_model_builder.parts.step import Layer


def olmo3(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, epsilon=1e-5)
    silu = activation(config)
    rotaries = rotary_by_type(config, sizes, sliding_theta=500_000.0, full_theta=500_000.0)
    types, window = layer_types(config, every(4, sizes.layers)), sliding_window(config, 4096)

    def layer(block: Block) -> Layer:
        kind = types[block.number]
        return normed_attention(config, block, rotaries[kind], silu, window if kind == "sliding_attention" else None)

    return decoder(config, sizes, layer)
