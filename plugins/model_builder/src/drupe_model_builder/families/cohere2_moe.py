"""Cohere 2 MoE: Cohere 2 with experts, chosen by their logits, and shared ones beside them."""

from __future__ import annotations

from typing import Any

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import (
    after_first,
    expert_sizes,
    experts_of,
    refuse_other_activations,
    shared_mlp,
)
from drupe_model_builder.configuration.reading import (
    activation,
    every,
    layer_types,
    rotary_of,
    sizes_of,
    sliding_window,
)
from drupe_model_builder.parts.experts import Experts
from drupe_model_builder.parts.mlp import MLP
from drupe_model_builder.parts.step import Branch, Layer, side_by_side


def cohere2_moe(config: Configuration) -> Decoder:
    rms = config.get("rms_norm_eps") is not None
    epsilon_key = "rms_norm_eps" if rms else "layer_norm_eps"
    sizes = sizes_of(config, context_length=8192, head_dim=128, epsilon=1e-5, epsilon_key=epsilon_key)
    rotary, silu, window = rotary_of(config, sizes, interleaved=True), activation(config), sliding_window(config, 4096)
    bias, sparse = config.flag("attention_bias", False), after_first(config)
    prefix = config.integer("prefix_dense_sliding_window_pattern", 1)
    types = layer_types(config, _usual_types(config, prefix, sizes.layers))
    dense_width = config.get("prefix_dense_intermediate_size") and config.integer("prefix_dense_intermediate_size")
    many = expert_sizes(config, (8, 2, 22528), width="intermediate_size")
    more = config.integer("num_shared_experts") if config.get("num_shared_experts") else 0
    average = _one_of(config, "shared_expert_combination_strategy", "average", ("average", "sum")) == "average"
    router: dict[str, Any] = {}
    if _one_of(config, "expert_selection_fn", "softmax", ("softmax", "sigmoid")) == "sigmoid":
        router = {"score": "sigmoid", "normalise": config.flag("norm_topk_prob", True)}
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        slides, dense = types[block.number] == "sliding_attention", not sparse[block.number]
        attention = block.attention(
            rotary if slides or (dense and prefix == 1) else None,
            bias=bias,
            output_bias=bias,
            window=window if slides else None,
        )
        if dense:
            mlp: MLP | Experts = shared_mlp(block, "mlp", dense_width or sizes.intermediate, silu)
        else:
            shared = shared_mlp(block, "mlp.shared_experts", more * many.width, silu) if more else None
            experts = experts_of(block, many, shared=shared, **router)
            mlp = replace(experts, factor=0.5) if more and average else experts
        return block.layer(side_by_side(block.norm("input_layernorm"), Branch(attention), Branch(mlp)))

    return decoder(
        config,
        sizes,
        layer,
        norms={"kind": "rms" if rms else "layer"},
        head={"factor": config.number("logit_scale", 0.0625)},
        tied=config.flag("tie_word_embeddings", True),
    )


def _usual_types(config: Configuration, prefix: int, layers: int) -> list[str]:
    """The types of layers: the first `first_k_dense_replace` layers have a pattern of their own."""
    pattern = config.integer("sliding_window_pattern", 4)
    dense = min(config.integer("first_k_dense_replace"), layers) if config.get("first_k_dense_replace") else 0
    return [*every(prefix, dense), *every(pattern, layers - dense)]


def _one_of(config: Configuration, key: str, default: str, known: tuple[str, ...]) -> str:
    value = config.text(key, default)
    if value not in known:
        raise config.mistake(f"{key} = '{value}': it must be {' or '.join(known)}")
    return value
