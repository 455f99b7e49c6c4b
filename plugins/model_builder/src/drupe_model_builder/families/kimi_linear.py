"""Kimi Linear: linear attention whose decay differs by channel, latent attention without rotation, and experts."""

from __future__ import annotations

from typing import Any

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
    shared_width,
    sigmoid_router,
)
from drupe_model_builder.configuration.latent import (
    LatentSizes,
    latent_attention_of,
    refuse_other_words,
    sizes_with_latents,
)
from drupe_model_builder.configuration.reading import activation, kinds_of_layers, not_built, without_effect
from drupe_model_builder.families.deepseek_v3 import CHOICE_BIAS
from drupe_model_builder.families.qwen3_5_text import ATTENTION, LINEAR
from drupe_model_builder.parts.convolution import Convolution
from drupe_model_builder.parts.gated_delta import GatedDelta
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.step import Layer

SPELLINGS = {
    "model_max_length": "max_position_embeddings", "moe_renormalize": "norm_topk_prob", "num_expert_group": "n_group",
    "num_shared_experts": "n_shared_experts",
}  # fmt: skip
"""Keys of its own, and what DeepSeek calls them."""
AT = "block_sparse_moe"
NAMES = ExpertNames(AT, gate="w1", up="w3", down="w2")
ALIASES = (
    (r"\.block_sparse_moe\.", ".mlp."),
    (r"\.mlp\.(shared_experts|gate)\.", r".block_sparse_moe.\1."),
    (r"\.forget_gate\.", "."),
)
"""transformers' own names, and the one that it gives dense layers when it saves."""


def kimi_linear(config: Configuration) -> Decoder:
    told = config.with_spellings(SPELLINGS)
    sizes, latent = sizes_with_latents(
        told, LatentSizes(None, 512, 128, 64, 128), context_length=1_048_576, epsilon=1e-5
    )
    silu, many = activation(told), expert_sizes(told, (256, 8, 1024))
    router = sigmoid_router(told, CHOICE_BIAS, factor=("routed_scaling_factor", 2.446), normalise=True)
    kinds, delta, sparse = _kinds(told, sizes), _delta_sizes(told), after_first(told, default=1)
    width, bias = shared_width(told, many, 1), told.flag("attention_bias", False)
    refuse_other_activations(told)
    without_effect(told, "use_grouped_topk")
    refuse_other_words(told, "moe_router_activation_func", "sigmoid")
    if not told.flag("mla_use_nope", True):
        raise not_built(
            config,
            "mla_use_nope",
            False,
            "asks for a rotation, which transformers' class does not have",
            "set it to true, as in the published model, to get what transformers computes",
        )

    def layer(block: Block) -> Layer:
        mixer: Any = _linear_attention(block, **delta)
        if kinds[block.number] == ATTENTION:
            mixer = latent_attention_of(block, latent, None, latent.key**-0.5, bias=bias)
        if not sparse[block.number]:
            return block.pre_norm(mixer, block.gated_mlp(silu))
        shared = shared_mlp(block, f"{AT}.shared_experts", width, silu) if width else None
        return block.pre_norm(mixer, experts_of(block, many, NAMES, shared=shared, **router))

    return decoder(told, sizes, layer, aliases=ALIASES)


def _linear_attention(block: Block, heads: int, size: int, kernel: int) -> GatedDelta:
    """The gate and the decay are made from small latents."""
    hidden, at, width = block.sizes.hidden, block.names.attention, heads * size
    return delta_attention(
        block,
        heads,
        size,
        kernel,
        gate=block.linear(f"{at}.g_b_proj", width, size),
        decay=block.linear(f"{at}.f_b_proj", width, size),
        gate_latent=block.linear(f"{at}.g_a_proj", size, hidden),
        decay_latent=block.linear(f"{at}.f_a_proj", size, hidden),
        a_log_shape=(1, 1, heads, 1),
    )


def delta_attention(
    block: Block, heads: int, size: int, kernel: int, *, gate: Linear, decay: Linear, **differences: Any
) -> GatedDelta:
    """Kimi's delta attention. differences: other fields of `GatedDelta`."""
    hidden, at, width = block.sizes.hidden, block.names.attention, heads * size
    name = f"{block.name}.{at}"
    mixed = Convolution(
        f"{name}.conv1d",
        block.number,
        kernel,
        tuple((f"{name}.{each}_conv1d", width) for each in "qkv"),
        activation="silu",
    )
    return GatedDelta(
        name,
        block.number,
        tuple(block.linear(f"{at}.{each}_proj", width, hidden) for each in "qkv"),
        mixed,
        gate,
        block.linear(f"{at}.b_proj", heads, hidden),
        decay,
        f"{name}.A_log",
        f"{name}.dt_bias",
        block.norm(f"{at}.o_norm", size),
        block.linear(f"{at}.{block.names.output}", hidden, width),
        key_heads=heads,
        value_heads=heads,
        key_size=size,
        value_size=size,
        gate_activation="sigmoid",
        **differences,
    )


def _delta_sizes(config: Configuration) -> dict[str, int]:
    """The sizes of linear attention: in a section of their own, or beside the other keys."""
    own = config.part("linear_attn_config")
    return {
        "heads": own.integer("num_heads", config.integer("linear_num_heads", 32)),
        "size": own.integer("head_dim", config.integer("linear_head_dim", 128)),
        "kernel": own.integer("short_conv_kernel_size", config.integer("linear_conv_kernel_dim", 4)),
    }


def _kinds(config: Configuration, sizes: Sizes) -> tuple[str, ...]:
    """What each layer has, by `layer_types`, or by two lists of numbers that count from 1."""
    own = config.section("linear_attn_config")
    full, linear = (own.get(key) if own else None for key in ("full_attn_layers", "kda_layers"))
    if config.get("layer_types") is not None or full is None or linear is None:
        usual = [ATTENTION if layer and layer % 4 == 0 else LINEAR for layer in range(sizes.layers)]
        return kinds_of_layers(config, (LINEAR, ATTENTION), usual)
    listed = isinstance(full, list) and isinstance(linear, list)
    if not listed or sorted([*full, *linear], key=str) != sorted(range(1, sizes.layers + 1), key=str):
        raise config.mistake(
            f"full_attn_layers and kda_layers of linear_attn_config want each number from 1 to {sizes.layers} once"
        )
    return tuple(ATTENTION if layer + 1 in full else LINEAR for layer in range(sizes.layers))
