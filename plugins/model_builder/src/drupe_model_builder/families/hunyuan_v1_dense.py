"""Hunyuan dense (`hunyuan_v1_dense`): Llama with an RMS norm on each head's query and key, after their rotation."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.frequencies import rotary
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.step import Layer

NAMES = Names(query_norm="query_layernorm", key_norm="key_layernorm")


def hunyuan_v1_dense(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, epsilon=1e-5)
    turned, silu = _rotary(config, sizes), activation(config)
    bias = config.flag("attention_bias", False)

    def layer(block: Block) -> Layer:
        attention = block.attention(turned, bias=bias, output_bias=bias, head_norm=True, norm_after_rotary=True)
        return block.pre_norm(attention, block.gated_mlp(silu))

    return decoder(config, sizes, layer, names=NAMES)


def _rotary(config: Configuration, sizes: Sizes) -> Rotary:
    """The rotary embedding. The type `dynamic` with an `alpha` stands for a base that is larger once and for all."""
    rope = config.rope()
    if rope.text("rope_type") != "dynamic" or not rope.get("alpha"):
        return rotary_of(config, sizes)
    size = sizes.head_dim
    theta = rope.number("rope_theta") * rope.number("alpha", above=0) ** (size / (size - 2))
    plain = Configuration(config.path, {**rope, "rope_type": "default", "rope_theta": theta})
    return rotary(plain, size, sizes.stated_length)
