"""Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: Llama with query, key and value in one matrix, and gate and up in another."""

from __future__ import annotations

from drupe.api import ModelError
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of, sliding_window
from drupe_model_builder.parts.rows import one_after_another
from drupe_model_builder.parts.step import Layer

TRAINED_LENGTH = 4096
IN_THE_GRAPH = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def phi3(config: Configuration) -> Decoder:
    config = _with_trained_length(config)
    sizes = sizes_of(config, context_length=4096, epsilon=1e-5)
    rotary, silu = rotary_of(config, sizes, partial=1.0), activation(config)
    window = sliding_window(config, 4096) if "sliding_window" in config else None
    rows = one_after_another([sizes.query, sizes.key, sizes.key])

    def layer(block: Block) -> Layer:
        projections = block.split(
            "self_attn.qkv_proj", sizes.hidden, rows, [f"self_attn.{each}_proj" for each in "qkv"]
        )
        attention = block.attention(rotary, projections=projections, window=window)
        return block.pre_norm(attention, block.gated_mlp(silu, fused="gate_up_proj"))

    return decoder(config, sizes, layer)


def _with_trained_length(config: Configuration) -> Configuration:
    """The configuration with `original_max_position_embeddings` beside the rotary parameters, where Phi-3 reads it."""
    key = "original_max_position_embeddings"
    if key in config:
        return config
    inside = config.rope().get(key, TRAINED_LENGTH)
    if inside != TRAINED_LENGTH:
        raise ModelError(
            f"{key} = {inside} has no effect inside the rotary parameters of a phi3 model: transformers takes "
            f"{TRAINED_LENGTH}",
            where=config.path,
            cure=f'write "{key}" on the top level of {config.path.name}',
        )
    return config.with_defaults({key: TRAINED_LENGTH})
