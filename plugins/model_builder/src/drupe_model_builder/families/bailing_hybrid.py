"""Ling 3.0: Kimi's delta attention, gated latent attention on every sixth layer, and experts after the first layers."""

from __future__ import annotations

from typing import Any

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, decoder
from drupe_model_builder.configuration.experts import (
    ExpertNames,
    after_first,
    expert_sizes,
    experts_of,
    refuse_other_activations,
    shared_mlp,
    shared_width,
    sigmoid_router,
)
from drupe_model_builder.configuration.latent import (
    LatentSizes,
    latent_attention_of,
    latent_scale,
    sizes_with_latents,
)
from drupe_model_builder.configuration.reading import activation, kinds_of_layers, rotary_of, without_effect
from drupe_model_builder.families.deepseek_v3 import further_layers
from drupe_model_builder.families.kimi_linear import SPELLINGS, delta_attention
from drupe_model_builder.families.qwen3_5_text import ATTENTION, LINEAR
from drupe_model_builder.parts.gated_delta import GatedDelta
from drupe_model_builder.parts.step import Layer

NAMES = Names(embedding="model.word_embeddings", attention="attention", output="dense")
CHOICE_BIAS = "gate.expert_bias"
EXPERTS = ExpertNames(merged=((CHOICE_BIAS, "gate.e_score_correction_bias"),))
ALIASES = (
    (r"^model\.embed_tokens\.", "model.word_embeddings."),
    (r"\.(?:self_attn|attention)\.(?:forget_gate\.)?o_proj\.", ".attention.dense."),
    (r"\.self_attn\.(?:forget_gate\.)?", ".attention."),
)
"""transformers' own names."""
WITHOUT_EFFECT = (
    "kda_lower_bound", "linear_conv_kernel_dim", "linear_head_dim", "linear_num_heads", "mtp_loss_scaling_factor",
    "q_lora_rank", "use_grouped_topk",
)  # fmt: skip
"""Keys that its class derives from others or ignores, and the bound where there is none."""


def bailing_hybrid(config: Configuration) -> Decoder:
    without_effect(config, *WITHOUT_EFFECT)
    told = config.with_spellings(SPELLINGS).with_values({"q_lora_rank": None})
    sizes, latent = sizes_with_latents(told, LatentSizes(None, 512, 128, 64, 128), context_length=262_144)
    rotary, scale = rotary_of(told, sizes, theta=6_000_000.0, interleaved=True), latent_scale(told, latent)
    silu, bias, many = activation(told), told.flag("attention_bias", False), expert_sizes(told, (512, 8, 768))
    router = sigmoid_router(told, CHOICE_BIAS, factor=("routed_scaling_factor", 2.5), groups=(8, 4), normalise=True)
    interval = told.integer("layer_group_size", 6)
    usual = [LINEAR if (layer + 1) % interval else ATTENTION for layer in range(sizes.layers)]
    kinds, sparse = kinds_of_layers(told, (LINEAR, ATTENTION), usual), after_first(told, default=2)
    delta = (sizes.heads, told.integer("head_dim", 128), told.integer("short_conv_kernel_size", 4))
    bound = _bound(told) if told.flag("kda_safe_gate", True) else None
    width = shared_width(told, many, 1)
    refuse_other_activations(told)

    def layer(block: Block) -> Layer:
        mixer: Any = _linear_attention(block, delta, bound)
        if kinds[block.number] == ATTENTION:
            gate = block.linear("attention.g_proj", sizes.heads, sizes.hidden)
            mixer = latent_attention_of(block, latent, rotary, scale, bias=bias, gate=gate)
        if not sparse[block.number]:
            return block.pre_norm(mixer, block.gated_mlp(silu))
        shared = shared_mlp(block, "mlp.shared_experts", width, silu) if width else None
        return block.pre_norm(mixer, experts_of(block, many, EXPERTS, shared=shared, **router))

    return decoder(told, sizes, layer, names=NAMES, aliases=ALIASES, ignored=further_layers(told, sizes))


def _linear_attention(block: Block, sizes: tuple[int, int, int], bound: float | None) -> GatedDelta:
    """sizes: heads, elements of a head, tokens that a convolution reads. bound: of the decay; None without one."""
    heads, size, kernel = sizes
    gate, decay = (block.linear(f"attention.{each}_proj", heads * size, block.sizes.hidden) for each in "gf")
    return delta_attention(block, heads, size, kernel, gate=gate, decay=decay, decay_bound=bound)


def _bound(config: Configuration) -> float:
    """The least logarithm of a decay."""
    bound = config.number("kda_lower_bound", -5.0)
    if bound >= 0:
        raise config.mistake(f"kda_lower_bound = {bound:g}: it must be below 0, or nothing is ever forgotten")
    return bound
