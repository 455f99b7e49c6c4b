"""Aria (its text model): Llama with experts on all layers, beside an MLP that every token runs."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import MergedNames, expert_sizes, merged_experts, shared_mlp
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer

NAMES = MergedNames(
    "mlp",
    "mlp.router",
    "mlp.experts.fc1.weight",
    "mlp.experts.fc2.weight",
    transposed=True,
    renamed=(
        ("mlp.experts.fc1.weight", "mlp.experts.gate_up_proj"),
        ("mlp.experts.fc2.weight", "mlp.experts.down_proj"),
    ),
)


def aria_text(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048)
    rotary, silu = rotary_of(config, sizes), activation(config)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    many = expert_sizes(config, (8, 2, 4096), width="intermediate_size")
    shared_width = many.width * config.integer("moe_num_shared_experts", 2)

    def layer(block: Block) -> Layer:
        # `hidden_act` is the shared MLP's: experts always have silu.
        shared = shared_mlp(block, "mlp.shared_experts", shared_width, silu, bias=mlp_bias)
        attention = block.attention(rotary, bias=bias, output_bias=bias)
        return block.pre_norm(attention, merged_experts(block, many, NAMES, shared=shared))

    return decoder(config, sizes, layer)
