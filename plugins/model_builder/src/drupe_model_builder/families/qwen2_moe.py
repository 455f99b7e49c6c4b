"""Qwen2 MoE: Qwen2 with experts on most layers, and one more that every token runs, times a sigmoid."""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import (
    by_step,
    expert_sizes,
    experts_of,
    refuse_other_activations,
    shared_mlp,
)
from drupe_model_builder.configuration.reading import (
    activation,
    layer_types,
    rotary_of,
    sizes_of,
    sliding_window,
    windows_of,
    without_effect,
)
from drupe_model_builder.parts.step import Layer


def qwen2_moe(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=32768, kv_heads=16)
    rotary, silu, bias = rotary_of(config, sizes), activation(config), config.flag("qkv_bias", True)
    many, sparse = expert_sizes(config, (60, 4, 1408)), by_step(config)
    width = config.integer("shared_expert_intermediate_size", 5632)
    normalise, windows = config.flag("norm_topk_prob", False), _windows(config)
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, window=windows[block.number])
        if not sparse[block.number]:
            return block.pre_norm(attention, block.gated_mlp(silu))
        shared = shared_mlp(block, "mlp.shared_expert", width, silu)
        gate = block.linear("mlp.shared_expert_gate", 1, sizes.hidden)
        experts = experts_of(block, many, shared=shared, normalise=normalise)
        return block.pre_norm(attention, replace(experts, shared_gate=gate))

    return decoder(config, sizes, layer)


def _windows(config: Configuration) -> tuple[int | None, ...]:
    """Its windows lie on every other layer below `max_window_layers`, unlike those of Qwen2."""
    slides = config.flag("use_sliding_window", False)
    if not slides:
        without_effect(config, "sliding_window")  # transformers writes 0 there
    last = config.integer("max_window_layers", 28)
    layers = config.integer("num_hidden_layers")
    usual = ["sliding_attention" if slides and at % 2 == 0 and at < last else "full_attention" for at in range(layers)]
    return windows_of(layer_types(config, usual), sliding_window(config, 4096) if slides else None)
