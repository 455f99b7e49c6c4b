"""Laguna: heads and rotary embedding by layer, a softplus gate on attention, and experts chosen by sigmoids."""

from __future__ import annotations

from typing import Any

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.experts import (
    ExpertNames,
    after_first,
    expert_sizes,
    experts_of,
    refuse_other_activations,
    shared_mlp,
)
from drupe_model_builder.configuration.reading import activation, layer_types, not_built, sizes_of, sliding_window
from drupe_model_builder.frequencies import rotary
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.step import Layer

CHOICE_BIAS = "experts.e_score_correction_bias"
NAMES = ExpertNames(
    merged=((CHOICE_BIAS, "gate.e_score_correction_bias"), ("shared_expert.", "shared_experts.")),
)
DEFAULTS = {"sliding_attention": (10_000.0, 1.0), "full_attention": (500_000.0, 0.5)}
"""The rotary base of each type of layer, and the rotated share of a head."""


def laguna(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131072, kv_heads=8, head_dim=128)
    silu, bias, window = activation(config), config.flag("attention_bias", False), sliding_window(config, 512)
    rotaries, types = _rotaries(config, sizes), layer_types(config, ["full_attention"] * sizes.layers)
    many, sparse = expert_sizes(config, (256, 8, 512)), after_first(config, default=1)
    width, heads = config.integer("shared_expert_intermediate_size", 512), _heads(config, sizes)
    if config.flag("moe_apply_router_weight_on_input", False):
        raise not_built(
            config,
            "moe_apply_router_weight_on_input",
            True,
            "weighs the input of experts",
            "choose another model: no operator of onnxruntime computes it",
        )
    router: dict[str, Any] = {
        "score": "sigmoid",
        "choice_bias": CHOICE_BIAS,
        "factor": config.number("moe_routed_scaling_factor", 1.0),
        "softcap": config.number("moe_router_logit_softcapping", 0.0),
    }
    whole = config.get("gating", True) not in (True, "per-head")
    refuse_other_activations(config)

    def layer(plain: Block) -> Layer:
        block = replace(plain, sizes=replace(sizes, heads=heads[plain.number]))
        own, kind = block.sizes, types[block.number]
        attention = block.attention(
            rotaries[kind],
            bias=bias,
            output_bias=bias,
            head_norm=True,
            window=window if kind == "sliding_attention" else None,
            gate=block.linear("self_attn.g_proj", own.query if whole else own.heads, own.hidden),
            gate_activation="Softplus",
        )
        if not sparse[block.number]:
            return block.pre_norm(attention, block.gated_mlp(silu))
        shared = shared_mlp(block, "mlp.shared_expert", width, silu)
        return block.pre_norm(attention, experts_of(block, many, NAMES, shared=shared, **router))

    return decoder(config, sizes, layer)


def _heads(config: Configuration, sizes: Sizes) -> list[int]:
    """How many heads each layer has."""
    value = config.get("num_attention_heads_per_layer")
    value = [sizes.heads] * sizes.layers if value is None else value
    fits = isinstance(value, list) and len(value) == sizes.layers
    if not fits or any(not isinstance(each, int) or each < 1 or each % sizes.kv_heads for each in value):
        raise config.mistake(
            f"num_attention_heads_per_layer wants, for each of {sizes.layers} layers, a multiple of {sizes.kv_heads}"
        )
    return list(value)


def _rotaries(config: Configuration, sizes: Sizes) -> dict[str, Rotary]:
    """The rotary embedding of each type of layer."""
    nested = config.part("rope_parameters")
    found = {}
    for kind, (theta, partial) in DEFAULTS.items():
        own = nested.part(kind)
        rope = Configuration(config.path, {"rope_parameters": {"rope_theta": theta, **own}})
        found[kind] = rotary(rope.rope(partial), sizes.head_dim, sizes.context_length)
    return found
