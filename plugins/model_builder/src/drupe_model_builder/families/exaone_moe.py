"""EXAONE MoE (K-EXAONE): norms of each head's query and key, windows, and experts chosen by sigmoids with a shared one.

Full layers have no rotary embedding where there are windows.
"""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import (
    ExpertNames,
    after_first,
    expert_sizes,
    experts_of,
    refuse_other_activations,
    shared_mlp,
    sigmoid_router,
)
from drupe_model_builder.configuration.reading import (
    activation,
    every,
    layer_types,
    rotary_of,
    sizes_of,
    sliding_window,
)
from drupe_model_builder.parts.step import Layer

CHOICE_BIAS = "e_score_correction_bias"
NAMES = ExpertNames(merged=((CHOICE_BIAS, f"gate.{CHOICE_BIAS}"),))


def exaone_moe(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, kv_heads=32, epsilon=1e-5)
    rotary, silu, window = rotary_of(config, sizes), activation(config), sliding_window(config, 4096)
    number = config.integer("sliding_window_pattern", 4)
    types = layer_types(config, every(number, sizes.layers) if window else ["full_attention"] * sizes.layers)
    many, sparse = expert_sizes(config, (64, 8, 1024)), after_first(config, default=1)
    router = sigmoid_router(config, CHOICE_BIAS, factor=("routed_scaling_factor", 2.5), normalise=True)
    shared_width = many.width * config.integer("num_shared_experts", 1)
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        slides = types[block.number] == "sliding_attention"
        attention = block.attention(
            rotary if slides or window is None else None, head_norm=True, window=window if slides else None
        )
        if not sparse[block.number]:
            return block.pre_norm(attention, block.gated_mlp(silu))
        shared = shared_mlp(block, "mlp.shared_experts", shared_width, silu)
        return block.pre_norm(attention, experts_of(block, many, NAMES, shared=shared, **router))

    return decoder(config, sizes, layer, ignored=(r"mtp\..*", r"model\.mtp\..*"))
