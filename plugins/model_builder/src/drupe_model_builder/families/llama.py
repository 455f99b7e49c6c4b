"""Llama 2, 3, 3.1, 3.2 and 3.3, and models with the same configuration: SmolLM, SmolLM2, TinyLlama, Vicuna."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer


def llama(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048)
    rotary, silu = rotary_of(config, sizes), activation(config)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

    def layer(block: Block) -> Layer:
        return block.pre_norm(
            block.attention(rotary, bias=bias, output_bias=bias), block.gated_mlp(silu, bias=mlp_bias)
        )

    return decoder(config, sizes, layer)
