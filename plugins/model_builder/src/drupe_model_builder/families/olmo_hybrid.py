"""OLMo Hybrid: linear attention with norms before it, and OLMo 2's attention with norms on its results."""

from __future__ import annotations

from typing import Any

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.reading import activation, kinds_of_layers, rotary_of, sizes_of
from drupe_model_builder.families.mamba2 import refuse_activation
from drupe_model_builder.families.olmo2 import normed_attention
from drupe_model_builder.families.qwen3_5_text import ATTENTION, LINEAR
from drupe_model_builder.parts.convolution import Convolution
from drupe_model_builder.parts.gated_delta import GatedDelta
from drupe_model_builder.parts.step import Layer, pre

NORM_EPSILON = 1e-5
"""Of the norm inside linear attention, whatever config.json says of the others."""
ALIASES = (
    (r"\.input_layernorm\.", ".attention_layer_norm."),
    (r"\.post_attention_layernorm\.", ".feedforward_layer_norm."),
    (r"\.feedforward_layer_norm\.", ".post_attention_layernorm."),
)
"""transformers' names, and those that it gives the attention layers' norms when it saves."""


def olmo_hybrid(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=65_536)
    kinds, silu = kinds_of_layers(config, (LINEAR, ATTENTION), _usual(sizes)), activation(config)
    refuse_activation(config)  # the linear attention's convolution has it, too
    rotary = rotary_of(config, sizes) if _rotates(config) else None
    delta = _delta_sizes(config, sizes)

    def layer(block: Block) -> Layer:
        if kinds[block.number] == LINEAR:
            return block.layer(
                pre(block.norm("attention_layer_norm"), _linear_attention(config, block, delta)),
                pre(block.norm("feedforward_layer_norm"), block.gated_mlp(silu)),
            )
        return normed_attention(config, block, rotary, silu, None)

    return decoder(config, sizes, layer, aliases=ALIASES)


def _linear_attention(config: Configuration, block: Block, sizes: dict[str, Any]) -> GatedDelta:
    hidden, name = block.sizes.hidden, f"{block.name}.linear_attn"
    keys, values = sizes["key_heads"] * sizes["key_size"], sizes["value_heads"] * sizes["value_size"]
    widths = {"q": keys, "k": keys, "v": values}
    mixed = Convolution(
        f"{name}.conv1d",
        block.number,
        config.integer("linear_conv_kernel_dim", 4),
        tuple((f"{name}.{each}_conv1d", width) for each, width in widths.items()),
        activation="silu",
    )
    return GatedDelta(
        name,
        block.number,
        tuple(block.linear(f"linear_attn.{each}_proj", width, hidden) for each, width in widths.items()),
        mixed,
        block.linear("linear_attn.g_proj", values, hidden),
        block.linear("linear_attn.b_proj", sizes["value_heads"], hidden),
        block.linear("linear_attn.a_proj", sizes["value_heads"], hidden),
        f"{name}.A_log",
        f"{name}.dt_bias",
        block.norm("linear_attn.o_norm", sizes["value_size"], epsilon=NORM_EPSILON),
        block.linear("linear_attn.o_proj", hidden, values),
        rate_factor=2.0 if config.flag("linear_allow_neg_eigval", True) else 1.0,
        **sizes,
    )


def _delta_sizes(config: Configuration, sizes: Sizes) -> dict[str, Any]:
    """The heads of linear attention, and their sizes; by default those of attention."""
    keys = config.integer("linear_num_key_heads", sizes.heads)
    values = config.integer("linear_num_value_heads", sizes.heads)
    if values % keys:
        raise config.mistake(f"linear_num_value_heads = {values} is not a multiple of linear_num_key_heads = {keys}")
    key_size = config.integer("linear_key_head_dim", int(0.75 * sizes.hidden / keys))
    return {
        "key_heads": keys,
        "value_heads": values,
        "key_size": key_size,
        "value_size": config.integer("linear_value_head_dim", 2 * key_size),
    }


def _usual(sizes: Sizes) -> list[str]:
    """Attention on every fourth layer, and at least on the last."""
    kinds = [ATTENTION if layer % 4 == 3 else LINEAR for layer in range(sizes.layers)]
    return kinds if ATTENTION in kinds else [*kinds[:-1], ATTENTION]


def _rotates(config: Configuration) -> bool:
    """Whether attention rotates: the published models have null for its base. A missing base is the usual one."""
    rope = config.section("rope_scaling") or config.section("rope_parameters")
    if rope is not None and "rope_theta" in rope:
        return rope["rope_theta"] is not None
    return "rope_theta" not in config or config["rope_theta"] is not None
