"""Qwen3 MoE: Qwen3 with experts on most layers. Their weights come from a softmax over all of them."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import by_step, expert_sizes, experts_of, refuse_other_activations
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of, sliding_window, without_effect
from drupe_model_builder.parts.step import Layer


def qwen3_moe(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=32768, kv_heads=4)
    rotary, silu, bias = rotary_of(config, sizes), activation(config), config.flag("attention_bias", False)
    slides = config.flag("use_sliding_window", False)
    window = sliding_window(config, 4096) if slides else None
    if not slides:
        without_effect(config, "sliding_window")
    many, sparse = expert_sizes(config, (128, 8, 768)), by_step(config)
    normalise = config.flag("norm_topk_prob", False)
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, head_norm=True, window=window)
        if sparse[block.number]:
            return block.pre_norm(attention, experts_of(block, many, normalise=normalise))
        return block.pre_norm(attention, block.gated_mlp(silu))

    return decoder(config, sizes, layer)
