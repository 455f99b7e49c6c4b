"""BLOOM: LayerNorms, one matrix for query, key and value, and a bias by distance in place of positions."""

from __future__ import annotations

import math

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import MOST_LAYERS, head_size, not_built
from drupe_model_builder.parts.distance import Distance
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rows import by_head
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(embedding="transformer.word_embeddings", layer="transformer.h.{}", attention="self_attention",
              output="dense", up="dense_h_to_4h", down="dense_4h_to_h", final_norm="transformer.ln_f")  # fmt: skip
NORMS = {"kind": "layer", "bias": True}
IN_THE_GRAPH = ("self_attention.q_proj", "self_attention.k_proj", "self_attention.v_proj")


def bloom(config: Configuration) -> Decoder:
    if config.flag("apply_residual_connection_post_layernorm", False):
        raise not_built(
            config,
            "apply_residual_connection_post_layernorm",
            True,
            "adds the normed input of each part",
            "choose a checkpoint without it; those of BLOOM and BLOOMZ have none",
        )
    sizes = _sizes(config)
    distance = Distance(distance_slopes(sizes.heads))
    rows = by_head([sizes.head_dim] * 3, sizes.heads)

    def layer(block: Block) -> Layer:
        projections = block.split("self_attention.query_key_value", sizes.hidden, rows, IN_THE_GRAPH, bias=True)
        attention = block.attention(None, projections=projections, output_bias=True, distance=distance)
        mlp = block.plain_mlp("gelu_new", bias=True)
        return block.layer(
            pre(block.norm("input_layernorm"), attention), pre(block.norm("post_attention_layernorm"), mlp)
        )

    first = Norm("transformer.word_embeddings_layernorm", (sizes.hidden,), sizes.epsilon, kind="layer", bias=True)
    return decoder(
        config,
        sizes,
        layer,
        names=NAMES,
        norms=NORMS,
        embedding={"norm": first},
        tied=config.flag("tie_word_embeddings", True),
    )


def distance_slopes(heads: int) -> tuple[float, ...]:
    """The slope of each head's bias: powers of one base, and for further heads every other power of its root."""
    whole = 2 ** math.floor(math.log2(heads))
    first = [2.0 ** (-8 * power / whole) for power in range(1, whole + 1)]
    between = [2.0 ** (-8 * power / (2 * whole)) for power in range(1, 2 * (heads - whole), 2)]
    return (*first, *between)


def _sizes(config: Configuration) -> Sizes:
    hidden = config.integer("hidden_size", config.integer("n_embed", 64))
    heads = config.integer("n_head", config.integer("num_attention_heads", 8))
    heads_key = "num_attention_heads" if config.get("n_head") is None else "n_head"
    return Sizes(
        vocab_size=config.integer("vocab_size"),
        hidden=hidden,
        intermediate=4 * hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=head_size(config, hidden, heads, "hidden_size", heads_key),
        layers=config.integer("n_layer", config.integer("num_hidden_layers", 2), most=MOST_LAYERS),
        context_length=config.integer("seq_length", 2048),
        epsilon=config.epsilon("layer_norm_epsilon", 1e-5),
    )
