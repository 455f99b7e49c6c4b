"""AFMoE (Arcee Trinity): norms before and after, a gate on attention, windows, and experts chosen by sigmoids.

Full layers have no rotary embedding.
"""

from __future__ import annotations

from typing import Any

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
from drupe_model_builder.parts.step import Layer, both

NAMES = ExpertNames(router="router.gate")


def afmoe(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=16384, head_dim=128, epsilon=1e-5)
    rotary, silu, bias = rotary_of(config, sizes), activation(config), config.flag("attention_bias", False)
    window = sliding_window(config, 1024)
    types = layer_types(config, every(config.integer("global_attn_every_n_layers", 4), sizes.layers))
    many, sparse = expert_sizes(config, (64, 6, 1408)), after_first(config, "num_dense_layers", 1)
    factor = config.number("route_scale", 1.0)
    router: dict[str, Any] = {"score": "sigmoid", "choice_bias": "expert_bias", "factor": factor}
    shared_width = many.width * config.integer("num_shared_experts", 2)
    embedded = sizes.hidden**0.5 if config.flag("mup_enabled", False) else 1.0
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        slides = types[block.number] == "sliding_attention"
        attention = block.attention(
            rotary if slides else None,
            bias=bias,
            output_bias=bias,
            head_norm=True,
            window=window if slides else None,
            gate=block.linear("self_attn.gate_proj", sizes.query, sizes.hidden),
        )
        if sparse[block.number]:
            shared = shared_mlp(block, "mlp.shared_experts", shared_width, silu)
            mlp: MLP | Experts = experts_of(block, many, NAMES, shared=shared, **router)
        else:
            mlp = block.gated_mlp(silu)
        return block.layer(
            both(block.norm("input_layernorm"), attention, block.norm("post_attention_layernorm")),
            both(block.norm("pre_mlp_layernorm"), mlp, block.norm("post_mlp_layernorm")),
        )

    return decoder(config, sizes, layer, embedding={"factor": embedded})
