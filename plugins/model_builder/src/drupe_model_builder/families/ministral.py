"""Ministral 8B: Mistral with a sliding window on some of the layers."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import (
    activation,
    layer_types,
    rotary_of,
    sizes_of,
    sliding_window,
    windows_of,
)
from drupe_model_builder.parts.step import Layer


def ministral(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131072, kv_heads=8)
    rotary, silu, window = rotary_of(config, sizes), activation(config), sliding_window(config, 4096)
    usual = "full_attention" if window is None else "sliding_attention"
    windows = windows_of(layer_types(config, [usual] * sizes.layers), window)

    def layer(block: Block) -> Layer:
        return block.pre_norm(block.attention(rotary, window=windows[block.number]), block.gated_mlp(silu))

    return decoder(config, sizes, layer)
