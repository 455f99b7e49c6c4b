"""Nemotron and Minitron: LayerNorms that store the weight minus one, half of each head rotated, and a squared ReLU."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer

NORMS = {"kind": "layer", "bias": True, "offset": 1.0}


def nemotron(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=4096, epsilon=1e-5, epsilon_key="norm_eps")
    rotary, relu2 = rotary_of(config, sizes, partial=0.5), activation(config, default="relu2")
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias)
        return block.pre_norm(attention, block.plain_mlp(relu2, bias=mlp_bias))

    return decoder(config, sizes, layer, norms=NORMS)
