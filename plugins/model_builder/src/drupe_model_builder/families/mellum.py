"""Mellum 2: Qwen3 MoE with windows, and a rotary base for each type of layer."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import after_first, expert_sizes, experts_of, refuse_other_activations
from drupe_model_builder.configuration.reading import activation, layer_types, rotary_by_type, sizes_of, sliding_window
from drupe_model_builder.parts.step import Layer


def mellum(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131072, kv_heads=4, head_dim=128)
    silu, bias, window = activation(config), config.flag("attention_bias", False), sliding_window(config, 1024)
    rotaries = rotary_by_type(config, sizes, sliding_theta=10_000.0, full_theta=500_000.0)
    types = layer_types(config, ["full_attention"] * sizes.layers)
    many, sparse = expert_sizes(config, (64, 8, 896)), after_first(config)
    normalise = config.flag("norm_topk_prob", True)
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        kind = types[block.number]
        attention = block.attention(
            rotaries[kind],
            bias=bias,
            output_bias=bias,
            head_norm=True,
            window=window if kind == "sliding_attention" else None,
        )
        if sparse[block.number]:
            return block.pre_norm(attention, experts_of(block, many, normalise=normalise))
        return block.pre_norm(attention, block.gated_mlp(silu))

    return decoder(config, sizes, layer, ignored=(r"(model\.)?mtp\..*",))
