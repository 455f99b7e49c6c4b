"""Falcon: attention and MLP side by side, keys and values shared by all heads or by groups; the first had ALiBi."""

from __future__ import annotations

import struct

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import (
    MOST_HEADS,
    activation,
    head_size,
    layer_count,
    rotary_of,
    shared_by,
)
from drupe_model_builder.families.bloom import distance_slopes
from drupe_model_builder.parts.distance import Distance
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.rows import by_head, one_after_another
from drupe_model_builder.parts.step import Branch, Layer, pre, side_by_side

NAMES = Names(
    embedding="transformer.word_embeddings",
    layer="transformer.h.{}",
    attention="self_attention",
    output="dense",
    up="dense_h_to_4h",
    down="dense_4h_to_h",
    final_norm="transformer.ln_f",
)
NORMS = {"kind": "layer", "bias": True}
IN_THE_GRAPH = ("self_attention.q_proj", "self_attention.k_proj", "self_attention.v_proj")


def falcon(config: Configuration) -> Decoder:
    grouped, bias = config.flag("new_decoder_architecture", False), config.flag("bias", False)
    sizes, gelu = _sizes(config, grouped), activation(config, key="activation", default="gelu")
    rotary: Rotary | None = rotary_of(config, sizes)
    distance, size = None, sizes.head_dim
    if config.flag("alibi", False):
        # The bias is added before the products are scaled.
        slopes = tuple(map(nearest_bfloat16, distance_slopes(sizes.heads)))
        rotary, distance = None, Distance(slopes, rounded=True, factor=size**-0.5)
    parallel = config.flag("parallel_attn", True) or grouped
    norms = config.integer("num_ln_in_parallel_attn", 2 if grouped else 1)
    if grouped:
        rows = by_head([sizes.heads // sizes.kv_heads * size, size, size], sizes.kv_heads)
    elif sizes.kv_heads == 1:
        rows = one_after_another([sizes.query, size, size])
    else:
        rows = by_head([size] * 3, sizes.heads)

    def layer(block: Block) -> Layer:
        projections = block.split("self_attention.query_key_value", sizes.hidden, rows, IN_THE_GRAPH, bias=bias)
        attention = block.attention(rotary, projections=projections, output_bias=bias, distance=distance)
        mlp = block.plain_mlp(gelu, bias=bias)
        if not parallel:
            return block.layer(
                pre(block.norm("input_layernorm"), attention), pre(block.norm("post_attention_layernorm"), mlp)
            )
        if grouped and norms == 2:
            first, second = block.norm("ln_attn"), block.norm("ln_mlp")
            return block.layer(side_by_side(None, Branch(attention, before=first), Branch(mlp, before=second)))
        return block.layer(side_by_side(block.norm("input_layernorm"), Branch(attention), Branch(mlp)))

    return decoder(config, sizes, layer, names=NAMES, norms=NORMS, tied=config.flag("tie_word_embeddings", True))


def _sizes(config: Configuration, grouped: bool) -> Sizes:
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads", most=MOST_HEADS)
    shared = 1 if config.flag("multi_query", True) else heads
    return Sizes(
        vocab_size=config.integer("vocab_size"),
        hidden=hidden,
        intermediate=config.integer("ffn_hidden_size", 4 * hidden),
        heads=heads,
        kv_heads=shared_by(config, heads, config.integer("num_kv_heads", heads), "num_kv_heads") if grouped else shared,
        head_dim=head_size(config, hidden, heads, "hidden_size", "num_attention_heads"),
        layers=layer_count(config),
        context_length=config.integer("max_position_embeddings", 2048),
        epsilon=config.epsilon("layer_norm_epsilon", 1e-5),
    )


def nearest_bfloat16(number: float) -> float:
    """The number rounded to bfloat16: the upper half of a float32, to the nearest, to even where two are as near."""
    bits = int.from_bytes(struct.pack(">f", number), "big")
    bits += 0x7FFF + (bits >> 16 & 1)
    rounded: float = struct.unpack(">f", (bits >> 16 << 16).to_bytes(4, "big"))[0]
    return rounded
