"""Hunyuan dense (`hunyuan_v1_dense`): Llama with an RMS norm on each head's query and key, after their rotation."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.families.block import Block, Names, decoder
from drupe_model_builder.families.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer

NAMES = Names(query_norm="query_layernorm", key_norm="key_layernorm")


def hunyuan_v1_dense(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, epsilon=1e-5)
    rotary, silu = rotary_of(config, sizes), activation(config)
    bias = config.flag("attention_bias", False)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, head_norm=True, norm_after_rotary=True)
        return block.pre_norm(attention, block.gated_mlp(silu))

    return decoder(config, sizes, layer, names=NAMES)
