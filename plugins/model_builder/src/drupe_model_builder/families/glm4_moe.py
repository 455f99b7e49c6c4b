"""GLM 4.5 to 4.7 and Solar Open: Llama with experts after the first layers, chosen by sigmoids, and a shared one.

GLM rotates half of each head, and may have norms of query and key.
"""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_checkpoints.configuration import DEFAULT_ROPE_THETA
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.experts import (
    after_first,
    expert_sizes,
    experts_of,
    refuse_other_activations,
    shared_mlp,
    sigmoid_router,
)
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer

CHOICE_BIAS = "gate.e_score_correction_bias"


def glm4_moe(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131072, kv_heads=8, epsilon=1e-5)
    return _decoder(config, sizes, 0.5, config.flag("use_qk_norm", False), after_first(config, default=1), 1408)


def solar_open(config: Configuration) -> Decoder:
    told = config.with_defaults({"intermediate_size": config.integer("moe_intermediate_size", 1280)})
    sizes = sizes_of(told, context_length=131072, kv_heads=8, head_dim=128, epsilon=1e-5)
    return _decoder(told, sizes, 1.0, False, (True,) * sizes.layers, 1280, theta=1_000_000.0)


def _decoder(
    config: Configuration,
    sizes: Sizes,
    partial: float,
    normed: bool,
    sparse: tuple[bool, ...],
    width: int,
    theta: float = DEFAULT_ROPE_THETA,
) -> Decoder:
    """partial: the rotated share of a head. normed: whether query and key have norms.

    width, theta: the defaults of experts' width and of the rotary base.
    """
    rotary, silu = rotary_of(config, sizes, partial=partial, theta=theta), activation(config)
    bias = config.flag("attention_bias", False)
    many, router = expert_sizes(config, (128, 8, width)), sigmoid_router(config, CHOICE_BIAS, normalise=True)
    shared_width = many.width * config.integer("n_shared_experts", 1)
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, head_norm=normed)
        if not sparse[block.number]:
            return block.pre_norm(attention, block.gated_mlp(silu))
        shared = shared_mlp(block, "mlp.shared_experts", shared_width, silu)
        return block.pre_norm(attention, experts_of(block, many, shared=shared, **router))

    return decoder(config, sizes, layer, ignored=(rf"model\.layers\.{sizes.layers}\..*",))
