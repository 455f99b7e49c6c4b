"""Ernie 4.5 MoE: Ernie 4.5 with experts on a range of layers, chosen by a softmax and a bias, and shared ones."""

from __future__ import annotations

from typing import Any

from drupe.api import counted
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import (
    ExpertNames,
    expert_sizes,
    experts_of,
    refuse_other_activations,
    shared_mlp,
)
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer

CHOICE_BIAS = "moe_statics.e_score_correction_bias"
NAMES = ExpertNames(merged=((CHOICE_BIAS, f"gate.{CHOICE_BIAS}"),))


def ernie4_5_moe(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131072, kv_heads=4, epsilon=1e-5)
    rotary, silu = rotary_of(config, sizes, interleaved=True, theta=500_000.0), activation(config)
    bias, sparse = config.flag("use_bias", False), _sparse_layers(config, sizes.layers)
    many = expert_sizes(config, (64, 6, 1536))
    more = 0 if config.get("moe_num_shared_experts") == 0 else config.integer("moe_num_shared_experts", 2)
    router: dict[str, Any] = {"choice_bias": CHOICE_BIAS, "choice_bias_shape": (1, many.count)}
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias)
        if not sparse[block.number]:
            return block.pre_norm(attention, block.gated_mlp(silu, bias=bias))
        shared = shared_mlp(block, "mlp.shared_experts", more * many.width, silu, bias=bias) if more else None
        return block.pre_norm(attention, experts_of(block, many, NAMES, shared=shared, **router))

    return decoder(
        config,
        sizes,
        layer,
        head={"bias": "lm_head.bias"} if bias else {},
        tied=config.flag("tie_word_embeddings", True),
        ignored=(r"model\.mtp_.*",),
    )


def _sparse_layers(config: Configuration, layers: int) -> tuple[bool, ...]:
    """Which layers have experts: every `moe_layer_interval`-th one from the first to the last index."""
    first, last = config.get("moe_layer_start_index", 1), config.get("moe_layer_end_index", -1)
    if not isinstance(first, int) or not isinstance(last, int) or not -1 <= last < layers:
        raise config.mistake(
            f"moe_layer_start_index and moe_layer_end_index want numbers of {counted(layers, 'layer')}"
        )
    every, end = config.integer("moe_layer_interval", 1), layers - 1 if last == -1 else last
    return tuple((at + 1) % every == 0 and first <= at <= end for at in range(layers))
