"""Ernie 4.5 dense: Llama whose rotary embedding rotates neighbours."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer


def ernie4_5(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131072, kv_heads=2, head_dim=128, epsilon=1e-5)
    rotary, silu = rotary_of(config, sizes, interleaved=True, theta=500_000.0), activation(config)
    bias = config.flag("use_bias", False)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias)
        return block.pre_norm(attention, block.gated_mlp(silu, bias=bias))

    return decoder(config, sizes, layer, tied=config.flag("tie_word_embeddings", True))
