"""Granite MoE: Granite with experts, and optionally an MLP beside them that every token runs."""

from __future__ import annotations

from collections.abc import Callable

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.experts import (
    MergedNames,
    expert_sizes,
    merged_experts,
    refuse_other_activations,
)
from drupe_model_builder.configuration.reading import activation, attention_multiplier, rotary_of, sizes_of
from drupe_model_builder.families.granite import granite_ends
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.mlp import MLP
from drupe_model_builder.parts.step import Layer

NAMES = MergedNames(
    "block_sparse_moe",
    "block_sparse_moe.router.layer",
    "block_sparse_moe.input_linear.weight",
    "block_sparse_moe.output_linear.weight",
    renamed=(
        ("block_sparse_moe.router.layer.weight", "block_sparse_moe.router.weight"),
        ("block_sparse_moe.input_linear.weight", "block_sparse_moe.experts.gate_up_proj"),
        ("block_sparse_moe.output_linear.weight", "block_sparse_moe.experts.down_proj"),
    ),
)


def granitemoe(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048)
    return granite_of_experts(config, sizes, full_attention(config, sizes))


def granitemoeshared(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048)
    return granite_of_experts(config, sizes, full_attention(config, sizes), shared_width(config))


def shared_width(config: Configuration) -> int:
    """The width of the MLP that every token runs; 0 without one."""
    return config.integer("shared_intermediate_size") if config.get("shared_intermediate_size") else 0


def full_attention(config: Configuration, sizes: Sizes) -> Callable[[Block], Attention]:
    """What gives the attention of a layer, which is the same for all."""
    rotary, scale, bias = rotary_of(config, sizes), attention_multiplier(config), config.flag("attention_bias", False)
    return lambda block: block.attention(rotary, bias=bias, output_bias=bias, scale=scale)


def granite_of_experts(
    config: Configuration, sizes: Sizes, attention: Callable[[Block], Attention], shared_width: int = 0
) -> Decoder:
    """shared_width: of the MLP that every token runs; 0 without one."""
    silu, factor = activation(config), config.number("residual_multiplier", 1.0)
    many = expert_sizes(config, (8, 2, 11008), width="intermediate_size")
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        shared = shared_granite_mlp(block, shared_width, silu) if shared_width else None
        return block.pre_norm(attention(block), merged_experts(block, many, NAMES, shared=shared), factor)

    return decoder(
        config,
        sizes,
        layer,
        **granite_ends(config),
    )


def shared_granite_mlp(block: Block, width: int, activation: str) -> MLP:
    """Granite's MLP with one matrix for gate and up."""
    hidden = block.sizes.hidden
    halves = [(range(width),), (range(width, 2 * width),)]
    called = ["shared_mlp.gate_proj", "shared_mlp.up_proj"]
    gate, up = block.split("shared_mlp.input_linear", hidden, halves, called)
    down = block.linear("shared_mlp.output_linear", hidden, width)
    return MLP(f"{block.name}.shared_mlp", up, down, activation, gate=gate)
