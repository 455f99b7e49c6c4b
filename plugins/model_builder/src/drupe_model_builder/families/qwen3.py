"""Qwen3: Qwen2 with an RMS norm on each head's query and key, and no bias unless the configuration asks for it."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.families.qwen2 import upper_windows
from drupe_model_builder.parts.step import Layer


def qwen3(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=32768, kv_heads=32, head_dim=128)
    rotary, silu, windows = rotary_of(config, sizes), activation(config), upper_windows(config)
    bias = config.flag("attention_bias", False)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, head_norm=True, window=windows[block.number])
        return block.pre_norm(attention, block.gated_mlp(silu))

    return decoder(config, sizes, layer)
