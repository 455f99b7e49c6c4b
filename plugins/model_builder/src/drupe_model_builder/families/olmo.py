"""OLMo: Llama with LayerNorms that have no weights, and with limits on query, key and value."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer

NORMS = {"kind": "layer", "weight": False, "epsilon": 1e-5}


def olmo(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048)
    rotary, silu, bias = rotary_of(config, sizes), activation(config), config.flag("attention_bias", False)
    clip = None if config.get("clip_qkv") is None else config.number("clip_qkv", above=0)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, clip=clip)
        return block.pre_norm(attention, block.gated_mlp(silu))

    return decoder(config, sizes, layer, norms=NORMS)
