"""Emu3 (its text model): Llama without biases, with a larger rotary base."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer


def emu3_text_model(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=9216, kv_heads=8, epsilon=1e-5)
    rotary, silu = rotary_of(config, sizes, theta=1_000_000.0), activation(config)

    def layer(block: Block) -> Layer:
        return block.pre_norm(block.attention(rotary), block.gated_mlp(silu))

    return decoder(config, sizes, layer)
