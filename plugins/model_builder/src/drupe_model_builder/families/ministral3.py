"""Ministral 3: Mistral whose queries grow with the position beyond the context that it was first trained on."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of, sliding_window, with_rotary
from drupe_model_builder.parts.attention import PositionScale
from drupe_model_builder.parts.step import Layer

USUAL_ROTARY = {
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def ministral3(config: Configuration) -> Decoder:
    config = with_rotary(config, USUAL_ROTARY)
    sizes = sizes_of(config, context_length=262144, kv_heads=8, head_dim=128, epsilon=1e-5)
    rotary, silu = rotary_of(config, sizes), activation(config)
    window = sliding_window(config, 4096) if "sliding_window" in config else None
    rope = config.rope()
    beta = rope.number("llama_4_scaling_beta", 0.0)
    trained = rope.integer("original_max_position_embeddings", sizes.context_length)
    scale = PositionScale(beta, trained) if beta else None

    def layer(block: Block) -> Layer:
        return block.pre_norm(block.attention(rotary, window=window, query_scale=scale), block.gated_mlp(silu))

    return decoder(config, sizes, layer)
