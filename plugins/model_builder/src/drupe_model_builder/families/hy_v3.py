"""Hunyuan 3 (`hy_v3`): Qwen3 with experts after the first layers, chosen by sigmoids, and a shared one."""

from __future__ import annotations

from typing import Any

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import (
    ExpertNames,
    after_first,
    expert_sizes,
    experts_of,
    refuse_other_activations,
    shared_mlp,
)
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer

NAMES = ExpertNames(
    router="router.gate",
    merged=(
        ("router.gate.", "gate."),
        ("expert_bias", "e_score_correction_bias"),
        ("shared_mlp.", "shared_experts."),
    ),
)


def hy_v3(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131072, kv_heads=8, head_dim=128, epsilon=1e-5)
    rotary, silu = rotary_of(config, sizes, theta=11_158_840.0), activation(config)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    many, sparse = expert_sizes(config, (192, 8, 1536)), after_first(config, default=1)
    router: dict[str, Any] = {
        "score": "sigmoid",
        "choice_bias": "expert_bias",
        "factor": config.number("router_scaling_factor", 2.826),
    }
    shared_width = many.width * config.integer("num_shared_experts", 1)
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, head_norm=True)
        if not sparse[block.number]:
            return block.pre_norm(attention, block.gated_mlp(silu, bias=mlp_bias))
        shared = shared_mlp(block, "mlp.shared_mlp", shared_width, silu, bias=mlp_bias)
        return block.pre_norm(attention, experts_of(block, many, NAMES, shared=shared, **router))

    return decoder(config, sizes, layer, ignored=(rf"model\.layers\.{sizes.layers}\..*",))
