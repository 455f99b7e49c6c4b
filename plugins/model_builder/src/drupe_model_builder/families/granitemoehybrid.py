"""Granite 4: Granite 3 with Mamba-2 in place of attention on most layers, or attention alone, and no positions.

Some have experts beside the MLP.
"""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import expert_sizes, merged_experts, refuse_other_activations
from drupe_model_builder.configuration.reading import (
    activation,
    attention_multiplier,
    kinds_of_layers,
    rotary_of,
    sizes_of,
    without_effect,
)
from drupe_model_builder.families.granite import granite_ends
from drupe_model_builder.families.granitemoe import NAMES as EXPERTS
from drupe_model_builder.families.granitemoe import shared_granite_mlp
from drupe_model_builder.families.mamba2 import hybrid_sizes, mixer_of
from drupe_model_builder.parts.step import Layer

WORDS = {"mamba": "linear_attention", "attention": "full_attention"}
"""transformers 4's words for kinds of layers, and transformers 5's."""
OF_SOME = (
    "mamba_conv_bias", "mamba_d_conv", "mamba_d_head", "mamba_d_state", "mamba_n_groups", "mamba_n_heads",
    "mamba_proj_bias", "num_experts_per_tok", "time_step_limit",
)  # fmt: skip
"""Keys of Mamba-2 and of experts, which some of these models are without."""


def granitemoehybrid(config: Configuration) -> Decoder:
    wide = config.with_values({"intermediate_size": config.integer("shared_intermediate_size", 1024)})
    sizes = sizes_of(wide, context_length=2048)
    kinds = attention_or_mamba(config, ["linear_attention"] * sizes.layers)
    turns = config.get("position_embedding_type") == "rope"
    rotary, silu = rotary_of(config, sizes) if turns else None, activation(config)
    mamba = hybrid_sizes(config) if "linear_attention" in kinds else None
    without_effect(config, *OF_SOME)
    bias = config.flag("attention_bias", False)
    scale, factor = attention_multiplier(config), config.number("residual_multiplier", 1.0)

    many = None
    if config.get("num_local_experts", 8):
        many = expert_sizes(config, (8, 2, 11008), width="intermediate_size")
        refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        shared = shared_granite_mlp(block, sizes.intermediate, silu)
        mlp = shared if many is None else merged_experts(block, many, EXPERTS, shared=shared)
        if kinds[block.number] == "linear_attention":
            assert mamba is not None
            return block.pre_norm(mixer_of(block, mamba, "mamba"), mlp, factor)
        attention = block.attention(rotary, bias=bias, output_bias=bias, scale=scale)
        return block.pre_norm(attention, mlp, factor)

    return decoder(
        config,
        sizes,
        layer,
        **granite_ends(config),
    )


def attention_or_mamba(config: Configuration, usual: list[str]) -> tuple[str, ...]:
    """What each layer has, in transformers 5's words; `layer_types`, or `layers_block_type` in older files."""
    key = "layer_types" if config.get("layer_types") is not None else "layers_block_type"
    found = kinds_of_layers(config, (*WORDS, *WORDS.values()), usual, key)
    return tuple(WORDS.get(kind, kind) for kind in found)
