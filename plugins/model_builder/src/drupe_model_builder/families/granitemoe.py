"""Granite MoE: Granite with experts, and optionally an MLP beside them that every token runs."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import (
    MergedNames,
    expert_sizes,
    merged_experts,
    refuse_other_activations,
)
from drupe_model_builder.configuration.reading import activation, attention_multiplier, rotary_of, sizes_of
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
    return _decoder(config, 0)


def granitemoeshared(config: Configuration) -> Decoder:
    width = config.get("shared_intermediate_size")
    return _decoder(config, config.integer("shared_intermediate_size") if width else 0)


def _decoder(config: Configuration, shared_width: int) -> Decoder:
    """shared_width: of the MLP that every token runs; 0 without one."""
    sizes = sizes_of(config, context_length=2048)
    rotary, silu, bias = rotary_of(config, sizes), activation(config), config.flag("attention_bias", False)
    scale, factor = attention_multiplier(config), config.number("residual_multiplier", 1.0)
    many = expert_sizes(config, (8, 2, 11008), width="intermediate_size")
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, scale=scale)
        shared = shared_granite_mlp(block, shared_width, silu) if shared_width else None
        return block.pre_norm(attention, merged_experts(block, many, NAMES, shared=shared), factor)

    return decoder(
        config,
        sizes,
        layer,
        embedding={"factor": config.number("embedding_multiplier", 1.0)},
        head={"factor": 1.0 / config.number("logits_scaling", 1.0, above=0)},
    )


def shared_granite_mlp(block: Block, width: int, activation: str) -> MLP:
    """Granite's MLP with one matrix for gate and up."""
    hidden = block.sizes.hidden
    halves = [(range(width),), (range(width, 2 * width),)]
    called = ["shared_mlp.gate_proj", "shared_mlp.up_proj"]
    gate, up = block.split("shared_mlp.input_linear", hidden, halves, called)
    down = block.linear("shared_mlp.output_linear", hidden, width)
    return MLP(f"{block.name}.shared_mlp", up, down, activation, gate=gate)
