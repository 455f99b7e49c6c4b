"""Seed-OSS: Llama with a bias on query, key and value, and none on the attention's output unless it is asked for."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer


def seed_oss(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=524288, kv_heads=8, head_dim=128)
    rotary, silu = rotary_of(config, sizes), activation(config)
    bias, output_bias = config.flag("attention_bias", True), config.flag("attention_out_bias", False)
    mlp_bias = config.flag("mlp_bias", False)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=output_bias)
        return block.pre_norm(attention, block.gated_mlp(silu, bias=mlp_bias))

    return decoder(config, sizes, layer)
