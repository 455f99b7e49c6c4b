"""DeepSeek V3 and R1: latent attention, and experts after the first layers, chosen by sigmoids from the best groups.

Layers behind the last one, which predict further tokens, are left out.
"""

from __future__ import annotations

from typing import Any

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.experts import (
    ExpertSizes,
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
    latent_rotary,
    latent_scale,
    refuse_other_words,
    sizes_with_latents,
)
from drupe_model_builder.configuration.reading import MOST_LAYERS, activation
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.step import Layer, both, pre

CHOICE_BIAS = "gate.e_score_correction_bias"


def deepseek_v3(config: Configuration) -> Decoder:
    sizes, latent = sizes_with_latents(config, LatentSizes(1536, 512, 128, 64, 128), context_length=4096)
    many, sparse = expert_sizes(config, (256, 8, 2048)), after_first(config, default=3)
    router = sigmoid_router(config, CHOICE_BIAS, factor=("routed_scaling_factor", 2.5), groups=(8, 4), normalise=True)
    refuse_other_words(config, "topk_method", "noaux_tc")
    refuse_other_words(config, "scoring_func", "sigmoid")
    return latent_decoder(config, sizes, latent, latent_rotary(config, sizes), sparse, many, router)


def latent_decoder(
    config: Configuration,
    sizes: Sizes,
    latent: LatentSizes,
    rotary: Rotary,
    sparse: tuple[bool, ...],
    many: ExpertSizes,
    router: dict[str, Any],
    *,
    shared_experts: int = 1,
    normed: str = "",
    ignored: tuple[str, ...] = (),
    aliases: tuple[tuple[str, str], ...] = (),
    zeros: tuple[str, ...] = (),
    **attention: Any,
) -> Decoder:
    """Latent attention in all layers, experts in the `sparse` ones. shared_experts: the default of `n_shared_experts`.

    normed: a norm on the experts' result, by its name in the layer. ignored, aliases, zeros: fields of `Decoder`.
    attention: other fields of `LatentAttention`.
    """
    scale, silu, bias = latent_scale(config, latent), activation(config), config.flag("attention_bias", False)
    width = shared_width(config, many, shared_experts)
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        mixer = latent_attention_of(block, latent, rotary, scale, bias=bias, **attention)
        if not sparse[block.number]:
            return block.pre_norm(mixer, block.gated_mlp(silu))
        shared = shared_mlp(block, "mlp.shared_experts", width, silu) if width else None
        experts = experts_of(block, many, shared=shared, **router)
        if not normed:
            return block.pre_norm(mixer, experts)
        before, after = block.norm("post_attention_layernorm"), block.norm(normed)
        return block.layer(pre(block.norm("input_layernorm"), mixer), both(before, experts, after))

    made = decoder(config, sizes, layer, ignored=(*further_layers(config, sizes), *ignored), aliases=aliases)
    return replace(made, zeros=zeros)


def further_layers(config: Configuration, sizes: Sizes) -> tuple[str, ...]:
    """The pattern of the names of tensors of layers behind the last one; empty where there are none."""
    if config.get("num_nextn_predict_layers") == 0:
        return ()
    count = config.integer("num_nextn_predict_layers", 1, most=MOST_LAYERS)
    numbers = "|".join(str(sizes.layers + each) for each in range(count))
    return (rf"model\.layers\.({numbers})\..*",)
