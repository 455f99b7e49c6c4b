"""Qwen 3.5: linear attention with a gated delta rule, and attention with a gate on every fourth layer.

One form has experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.experts import (
    ExpertSizes,
    expert_sizes,
    experts_of,
    refuse_other_activations,
    shared_mlp,
)
from drupe_model_builder.configuration.reading import MOST_HEADS, activation, kinds_of_layers, rotary_of, sizes_of
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.convolution import Convolution
from drupe_model_builder.parts.experts import Experts
from drupe_model_builder.parts.gated_delta import GatedDelta
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.rows import by_head
from drupe_model_builder.parts.step import Layer

NORMS = {"offset": 1.0}
LINEAR, ATTENTION = "linear_attention", "full_attention"
PARTIAL = 0.25
IGNORED = (r"(model\.)?mtp\..*",)


def qwen3_5_text(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=32_768, kv_heads=4, head_dim=256)
    rotary, silu = rotary_of(config, sizes, partial=PARTIAL), activation(config)
    kinds = layer_kinds(config, sizes)

    def layer(block: Block) -> Layer:
        if kinds[block.number] == LINEAR:
            return block.pre_norm(_linear_attention(config, block), block.gated_mlp(silu))
        return block.pre_norm(gated_attention(config, block, rotary), block.gated_mlp(silu))

    return decoder(config, sizes, layer, norms=NORMS, ignored=IGNORED)


def qwen3_5_moe_text(config: Configuration) -> Decoder:
    """With experts on every layer, whose weights have the sum 1."""
    told = config.with_defaults({"intermediate_size": config.integer("moe_intermediate_size", 512)})
    sizes = sizes_of(told, context_length=32_768, kv_heads=2, head_dim=256)
    rotary, many = rotary_of(config, sizes, partial=PARTIAL), expert_sizes(config, (256, 8, 512))
    kinds = layer_kinds(config, sizes)

    def layer(block: Block) -> Layer:
        linear = kinds[block.number] == LINEAR
        mixer = _linear_attention(config, block) if linear else gated_attention(config, block, rotary)
        return block.pre_norm(mixer, experts_with_a_shared_one(config, block, many, normalise=True))

    return decoder(config, sizes, layer, norms=NORMS, ignored=IGNORED)


def experts_with_a_shared_one(config: Configuration, block: Block, many: ExpertSizes, *, normalise: bool) -> Experts:
    """Experts, and one that every token runs, times a sigmoid."""
    refuse_other_activations(config)
    width = config.integer("shared_expert_intermediate_size", 512)
    shared = shared_mlp(block, "mlp.shared_expert", width, activation(config))
    gate = block.linear("mlp.shared_expert_gate", 1, block.sizes.hidden)
    return replace(experts_of(block, many, shared=shared, normalise=normalise), shared_gate=gate)


def layer_kinds(config: Configuration, sizes: Sizes) -> tuple[str, ...]:
    """What each layer has, by `layer_types`, or by `full_attention_interval` without it."""
    interval = config.integer("full_attention_interval", 4)
    usual = [LINEAR if (layer + 1) % interval else ATTENTION for layer in range(sizes.layers)]
    return kinds_of_layers(config, (LINEAR, ATTENTION), usual)


def gated_attention(config: Configuration, block: Block, rotary: Rotary) -> Attention:
    """Attention whose query matrix holds, for each head, the rows of the query and those of the gate."""
    sizes, bias = block.sizes, config.flag("attention_bias", False)
    halves = by_head([sizes.head_dim] * 2, sizes.heads)
    called = ("self_attn.q_proj", "self_attn.gate_proj")
    query, gate = block.split("self_attn.q_proj", sizes.hidden, halves, called, bias=bias)
    key, value = (block.linear(f"self_attn.{name}", sizes.key, sizes.hidden, bias) for name in ("k_proj", "v_proj"))
    return block.attention(rotary, projections=(query, key, value), head_norm=True, output_bias=bias, gate=gate)


def delta_sizes(config: Configuration) -> dict[str, Any]:
    """The heads of linear attention, and their sizes."""
    keys = config.integer("linear_num_key_heads", 16, most=MOST_HEADS)
    values = config.integer("linear_num_value_heads", 32)
    if values % keys:
        raise config.mistake(f"linear_num_value_heads = {values} is not a multiple of linear_num_key_heads = {keys}")
    return {
        "key_heads": keys,
        "value_heads": values,
        "key_size": config.integer("linear_key_head_dim", 128),
        "value_size": config.integer("linear_value_head_dim", 128),
    }


def _linear_attention(config: Configuration, block: Block) -> GatedDelta:
    found, hidden = delta_sizes(config), block.sizes.hidden
    keys, values = found["key_heads"] * found["key_size"], found["value_heads"] * found["value_size"]
    mixed = block.linear("linear_attn.in_proj_qkv", 2 * keys + values, hidden)
    gate = block.linear("linear_attn.in_proj_z", values, hidden)
    rate, decay = (block.linear(f"linear_attn.in_proj_{each}", found["value_heads"], hidden) for each in "ba")
    return gated_delta(config, block, (mixed,), gate, rate, decay)


def gated_delta(
    config: Configuration, block: Block, projections: Sequence[Linear], gate: Linear, rate: Linear, decay: Linear
) -> GatedDelta:
    """Linear attention with these projections. Its own norm has plain weights."""
    found, name = delta_sizes(config), f"{block.name}.linear_attn"
    channels, values = sum(each.size for each in projections), found["value_heads"] * found["value_size"]
    return GatedDelta(
        name,
        block.number,
        tuple(projections),
        Convolution(
            f"{name}.conv1d",
            block.number,
            config.integer("linear_conv_kernel_dim", 4),
            ((f"{name}.conv1d", channels),),
            activation="silu",
        ),
        gate,
        rate,
        decay,
        f"{name}.A_log",
        f"{name}.dt_bias",
        block.norm("linear_attn.norm", found["value_size"], offset=0.0),
        block.linear("linear_attn.out_proj", block.sizes.hidden, values),
        **found,
    )
