"""Mixtral: Mistral with experts, whose weights come from a softmax over the chosen ones."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import MIXTRAL, expert_sizes, experts_of, refuse_other_activations
from drupe_model_builder.configuration.reading import rotary_of, sizes_of, sliding_window
from drupe_model_builder.parts.step import Layer


def mixtral(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131072, kv_heads=8, epsilon=1e-5)
    rotary = rotary_of(config, sizes, theta=1_000_000.0)
    window = sliding_window(config, 4096) if config.get("sliding_window") is not None else None
    many = expert_sizes(config, (8, 2, 14336), width="intermediate_size")
    refuse_other_activations(config)

    def layer(block: Block) -> Layer:
        return block.pre_norm(block.attention(rotary, window=window), experts_of(block, many, MIXTRAL))

    return decoder(config, sizes, layer)
