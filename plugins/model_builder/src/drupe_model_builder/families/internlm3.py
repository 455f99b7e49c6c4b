"""InternLM 3: Llama with names of its own for the biases."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer


def internlm3(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=32768, kv_heads=2, head_dim=128, epsilon=1e-5)
    rotary, silu = rotary_of(config, sizes), activation(config)
    output_bias = config.flag("bias", config.flag("attention_bias", False))
    bias = config.flag("qkv_bias", output_bias)
    mlp_bias = config.flag("bias", config.flag("mlp_bias", False))

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=output_bias)
        return block.pre_norm(attention, block.gated_mlp(silu, bias=mlp_bias))

    return decoder(config, sizes, layer)
