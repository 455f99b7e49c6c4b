"""Flint: Qwen3 MoE with attention sinks, windows on most layers, and rotation on those only; experts by sigmoids."""

from __future__ import annotations

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
)
from drupe_model_builder.parts.step import Layer

ALIASES = ((r"\.self_attn\.sinks$", ".self_attn.softmax_offset"),)
"""transformers' own name."""


def flint(config: Configuration) -> Decoder:
    dense = [0, 1] if config.get("mlp_only_layers") is None else config["mlp_only_layers"]
    config = config.with_values({"mlp_only_layers": dense})
    sizes = sizes_of(config, context_length=262_144, kv_heads=4, head_dim=128)
    rotary, silu, bias = rotary_of(config, sizes), activation(config), config.flag("attention_bias", False)
    types, window = layer_types(config, _usual(sizes.layers)), sliding_window(config, 513)
    many, sparse = expert_sizes(config, (256, 6, 512)), by_step(config)
    width, normalise = config.integer("shared_expert_intermediate_size", 1024), config.flag("norm_topk_prob", True)
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        slides = types[block.number] == "sliding_attention"
        attention = block.attention(
            rotary if slides else None,
            bias=bias,
            output_bias=bias,
            head_norm=True,
            window=window if slides else None,
            sinks=f"{block.name}.self_attn.softmax_offset",
        )
        if not sparse[block.number]:
            return block.pre_norm(attention, block.gated_mlp(silu))
        shared = shared_mlp(block, "mlp.shared_expert", width, silu)
        experts = experts_of(block, many, shared=shared, score="sigmoid", normalise=normalise)
        return block.pre_norm(attention, experts)

    return decoder(config, sizes, layer, aliases=ALIASES)


def _usual(layers: int) -> list[str]:
    """The first two layers, every fourth and the last one read all tokens."""
    full = {0, *range(1, layers, 4), layers - 1}
    return ["full_attention" if layer in full else "sliding_attention" for layer in range(layers)]
