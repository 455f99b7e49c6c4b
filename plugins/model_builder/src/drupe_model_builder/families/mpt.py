"""MPT: LayerNorms without biases, one matrix for query, key and value, and a bias by distance in place of positions."""

from __future__ import annotations

import math

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import MOST_LAYERS, head_size, not_built
from drupe_model_builder.parts.distance import Distance
from drupe_model_builder.parts.rows import one_after_another
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(embedding="transformer.wte", layer="transformer.blocks.{}", attention="attn", output="out_proj",
              mlp="ffn", final_norm="transformer.norm_f")  # fmt: skip
NORMS = {"kind": "layer"}
IN_THE_GRAPH = ("attn.q_proj", "attn.k_proj", "attn.v_proj")
LEFT_OUT = {"alibi": True, "prefix_lm": False, "qk_ln": False, "attn_uses_sequence_id": False}
"""Settings of attention, with the one value that is supported, which is the default."""
STEEPEST = 8
"""`alibi_bias_max`: the slopes of the bias by distance are 2 to the power of minus this number and less."""


def mpt(config: Configuration) -> Decoder:
    settings = config.part("attn_config")
    for key, only in LEFT_OUT.items():
        if settings.flag(key, only) != only:
            raise not_built(
                config,
                f"attn_config.{key}",
                not only,
                "changes what attention computes",
                f"choose a checkpoint with {key} = {str(only).lower()}, such as MPT-7B",
            )
    if settings.get("alibi_bias_max", STEEPEST) != STEEPEST:
        raise not_built(
            config,
            "attn_config.alibi_bias_max",
            settings["alibi_bias_max"],
            "changes what attention computes",
            f"set it to {STEEPEST} to get what transformers computes, which ignores the key",
        )
    sizes = _sizes(config)
    distance = Distance(_slopes(sizes.heads))
    scale = None if settings.get("softmax_scale") is None else settings.number("softmax_scale", above=0)
    clip = None if not settings.get("clip_qkv") else settings.number("clip_qkv", above=0)
    rows = one_after_another([sizes.hidden] * 3)

    def layer(block: Block) -> Layer:
        projections = block.split("attn.Wqkv", sizes.hidden, rows, IN_THE_GRAPH, clip=clip)
        attention = block.attention(None, projections=projections, scale=scale, distance=distance)
        return block.layer(pre(block.norm("norm_1"), attention), pre(block.norm("norm_2"), block.plain_mlp("gelu")))

    return decoder(config, sizes, layer, names=NAMES, norms=NORMS, tied=config.flag("tie_word_embeddings", True))


def _slopes(heads: int) -> tuple[float, ...]:
    """The slope of each head's bias: of as many as a power of two, every other one first."""
    whole = 2 ** math.ceil(math.log2(heads))
    slopes = [2.0 ** (-STEEPEST * power / whole) for power in range(1, whole + 1)]
    return tuple(slopes if whole == heads else (slopes[1::2] + slopes[::2])[:heads])


def _sizes(config: Configuration) -> Sizes:
    hidden, heads = config.integer("d_model", 2048), config.integer("n_heads", 16)
    return Sizes(
        vocab_size=config.integer("vocab_size"),
        hidden=hidden,
        intermediate=4 * hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=head_size(config, hidden, heads, "d_model", "n_heads"),
        layers=config.integer("n_layers", 24, most=MOST_LAYERS),
        context_length=config.integer("max_seq_len", 2048),
        epsilon=config.epsilon("layer_norm_epsilon", 1e-5),
    )
