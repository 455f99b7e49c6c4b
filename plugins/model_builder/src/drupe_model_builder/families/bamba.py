"""Bamba: Mamba-2, and attention that rotates half of a head on some layers."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.families.mamba2 import hybrid_sizes, mixer_of
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(mlp="feed_forward", final_norm="model.final_layernorm")


def bamba(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=262_144, kv_heads=8, epsilon=1e-5)
    rotary, silu, mamba = rotary_of(config, sizes, partial=0.5), activation(config), hybrid_sizes(config)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    attends = config.get("attn_layer_indices") or []
    if not isinstance(attends, list) or any(layer not in range(sizes.layers) for layer in attends):
        raise config.mistake(f"attn_layer_indices wants numbers of layers below {sizes.layers}")

    def layer(block: Block) -> Layer:
        attention = block.number in attends
        mixer = block.attention(rotary, bias=bias, output_bias=bias) if attention else mixer_of(block, mamba, "mamba")
        return block.layer(
            pre(block.norm("input_layernorm"), mixer),
            pre(block.norm("pre_ff_layernorm"), block.gated_mlp(silu, bias=mlp_bias)),
        )

    return decoder(config, sizes, layer, names=NAMES)
