"""Kolibri: windows, norms before and after, and experts chosen by their logits, with sigmoids as weights.

Full layers have no rotary embedding where there are windows.
"""

from __future__ import annotations

from typing import Any

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import expert_sizes, experts_of, refuse_other_activations, shared_mlp
from drupe_model_builder.configuration.reading import (
    activation,
    every,
    layer_types,
    rotary_of,
    sizes_of,
    sliding_window,
)
from drupe_model_builder.parts.experts import Experts
from drupe_model_builder.parts.step import Layer, both


def kolibri1(config: Configuration) -> Decoder:
    width = config.integer("shared_expert_intermediate_size", 512)
    told = config.with_defaults({"intermediate_size": width})
    sizes = sizes_of(told, context_length=262144, kv_heads=4, head_dim=128)
    rotary, silu, window = rotary_of(config, sizes), activation(config), sliding_window(config, 513)
    types, many = layer_types(config, every(5, sizes.layers)), expert_sizes(config, (384, 6, 512))
    router: dict[str, Any] = {
        "score": "sigmoid",
        "chosen_by": "logit",
        "normalise": config.flag("norm_topk_prob", False),
    }
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        slides = types[block.number] == "sliding_attention"
        attention = block.attention(
            rotary if slides or window is None else None, head_norm=True, window=window if slides else None
        )
        shared = shared_mlp(block, "mlp.shared_experts", width, silu)
        experts = _named(block, experts_of(block, many, shared=shared, **router))
        return block.layer(
            both(block.norm("input_layernorm"), attention, block.norm("post_attn_norm")),
            both(block.norm("post_attention_layernorm"), experts, block.norm("post_ffn_norm")),
        )

    return decoder(config, sizes, layer)


def _named(block: Block, experts: Experts) -> Experts:
    """The experts with the names that Kolibri's tensors have, and those that transformers gives them."""
    bias = f"{block.name}.moe.router.expert_bias"
    renamed = (
        (bias, f"{block.name}.mlp.gate.e_score_correction_bias"),
        (f"{block.name}.post_attn_norm.", f"{block.name}.post_self_attn_layernorm."),
        (f"{block.name}.post_ffn_norm.", f"{block.name}.post_mlp_layernorm."),
    )
    return replace(experts, router=replace(experts.router, choice_bias=bias), renamed=(*renamed, *experts.renamed))
