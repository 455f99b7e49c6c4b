"""Baichuan 7B: Llama with one matrix for query, key and value."""

from __future__ import annotations

from drupe.api import ModelError
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.rows import one_after_another
from drupe_model_builder.parts.step import Layer

IN_THE_GRAPH = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
NORMED_HEAD_VOCABULARY = 125696
"""The vocabulary of Baichuan 2, whose head's rows are scaled to length 1."""


def baichuan(config: Configuration) -> Decoder:
    if "max_position_embeddings" not in config:
        raise _unsupported(config, "Baichuan 13B, whose attention has a bias by distance,")
    sizes = sizes_of(config, context_length=4096)
    if sizes.vocab_size == NORMED_HEAD_VOCABULARY:
        raise _unsupported(config, "Baichuan 2, whose head's rows are scaled to length 1,")
    rotary, silu = rotary_of(config, sizes), activation(config)
    rows = one_after_another([sizes.query, sizes.key, sizes.key])

    def layer(block: Block) -> Layer:
        projections = block.split("self_attn.W_pack", sizes.hidden, rows, IN_THE_GRAPH)
        return block.pre_norm(block.attention(rotary, projections=projections), block.gated_mlp(silu))

    return decoder(config, sizes, layer)


def _unsupported(config: Configuration, what: str) -> ModelError:
    return ModelError(
        f"{what} is not supported; {config.path.name} describes it",
        where=config.path,
        cure="choose Baichuan 7B, or another model",
    )
