"""Phi-3.5-MoE: LayerNorms with biases, and two experts a token, chosen one after the other ("sparsemixer")."""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import (
    MIXTRAL,
    expert_sizes,
    experts_of,
    refuse_other_activations,
)
from drupe_model_builder.configuration.reading import rotary_of, sizes_of, sliding_window
from drupe_model_builder.parts.step import Layer

NORMS = {"kind": "layer", "bias": True}
CHOSEN = 2
NAMES = replace(MIXTRAL, merged=(("gate.", "router."),))


def phimoe(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131072, kv_heads=8, epsilon=1e-5)
    rotary, bias = rotary_of(config, sizes, theta=1_000_000.0), config.flag("attention_bias", False)
    window = sliding_window(config, 4096) if config.get("sliding_window") is not None else None
    many = expert_sizes(config, (16, CHOSEN, 6400), width="intermediate_size")
    if many.chosen != CHOSEN:
        raise config.mistake(f"num_experts_per_tok = {many.chosen}: its router chooses {CHOSEN} experts")
    jitter = 2 * config.number("router_jitter_noise", 0.01)
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, window=window)
        experts = experts_of(block, many, NAMES, score="sparsemixer", normalise=False, jitter=jitter)
        return block.pre_norm(attention, experts)

    head = {"bias": "lm_head.bias"} if config.flag("lm_head_bias", False) else {}
    return decoder(config, sizes, layer, norms=NORMS, head=head)
