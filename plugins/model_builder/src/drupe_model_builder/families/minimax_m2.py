"""MiniMax M2: experts on all layers, chosen by sigmoids, and norms over the whole of query and key."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import MIXTRAL, expert_sizes, experts_of, refuse_other_activations
from drupe_model_builder.configuration.reading import rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer


def minimax_m2(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=196608, kv_heads=8, head_dim=128)
    width = config.get("rotary_dim")
    partial = 1.0 if width is None else config.integer("rotary_dim") / sizes.head_dim
    rotary = rotary_of(config, sizes, theta=5_000_000.0, partial=partial)
    many = expert_sizes(config, (256, 8, 1536), width="intermediate_size")
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        attention = block.attention(
            rotary,
            norm_span="whole",
            query_norm=block.norm("self_attn.q_norm", sizes.query),
            key_norm=block.norm("self_attn.k_norm", sizes.key),
        )
        experts = experts_of(block, many, MIXTRAL, score="sigmoid", choice_bias="e_score_correction_bias")
        return block.pre_norm(attention, experts)

    return decoder(config, sizes, layer, ignored=(r"model\.mtp\..*",))
