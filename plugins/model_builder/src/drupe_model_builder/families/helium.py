"""Helium: Llama whose rotary embedding rotates neighbours, with no bias on the attention's output."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer


def helium(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=4096, head_dim=128, epsilon=1e-8)
    rotary, silu = rotary_of(config, sizes, interleaved=True, theta=100_000.0), activation(config)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

    def layer(block: Block) -> Layer:
        return block.pre_norm(block.attention(rotary, bias=bias), block.gated_mlp(silu, bias=mlp_bias))

    return decoder(config, sizes, layer)
