"""Mistral 7B and Mistral Nemo: Llama without biases, and with a sliding window unless the configuration says null."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of, sliding_window
from drupe_model_builder.parts.step import Layer


def mistral(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131072, kv_heads=8)
    rotary, silu, window = rotary_of(config, sizes), activation(config), sliding_window(config, 4096)

    def layer(block: Block) -> Layer:
        return block.pre_norm(block.attention(rotary, window=window), block.gated_mlp(silu))

    return decoder(config, sizes, layer)
