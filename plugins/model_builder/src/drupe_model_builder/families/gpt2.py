"""GPT-2: LayerNorms, learned positions, one matrix for query, key and value, and matrices stored as [in, out]."""

from __future__ import annotations

import re
from typing import Any

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import MOST_LAYERS, activation, head_size
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.mlp import MLP
from drupe_model_builder.parts.rows import Rows, one_after_another
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(
    embedding="transformer.wte",
    layer="transformer.h.{}",
    attention="attn",
    mlp="mlp",
    final_norm="transformer.ln_f",
)
NORMS = {"kind": "layer", "bias": True}
IN_THE_GRAPH = ("attn.q_proj", "attn.k_proj", "attn.v_proj")


def gpt2(config: Configuration) -> Decoder:
    sizes = gpt2_sizes(config, kv_heads=None)
    by_depth = config.flag("scale_attn_by_inverse_layer_idx", False)
    gelu = activation(config, key="activation_function", default="gelu_new")

    def layer(block: Block) -> Layer:
        rows = one_after_another([sizes.query, sizes.key, sizes.key])
        projections = block.split("attn.c_attn", sizes.hidden, rows, IN_THE_GRAPH, bias=True, transposed=True)
        scale = gpt2_scale(config, sizes) / (block.number + 1 if by_depth else 1)
        return gpt2_layer(block, projections, scale, gelu, transposed=True)

    return gpt2_decoder(config, sizes, layer)


def gpt2_sizes(
    config: Configuration, kv_heads: int | None, *, vocab_size: int = 50257, context_length: int = 1024
) -> Sizes:
    """The sizes, with the names that GPT-2 has for them. vocab_size, context_length: the family's defaults."""
    hidden, heads = config.integer("n_embd", 768), config.integer("n_head", 12)
    return Sizes(
        vocab_size=config.integer("vocab_size", vocab_size),
        hidden=hidden,
        intermediate=config.integer("n_inner", 4 * hidden),
        heads=heads,
        kv_heads=kv_heads or heads,
        head_dim=head_size(config, hidden, heads, "n_embd", "n_head"),
        layers=config.integer("n_layer", 12, most=MOST_LAYERS),
        context_length=config.integer("n_positions", context_length),
        epsilon=config.epsilon("layer_norm_epsilon", 1e-5),
    )


def gpt2_scale(config: Configuration, sizes: Sizes) -> float:
    return sizes.head_dim**-0.5 if config.flag("scale_attn_weights", True) else 1.0


def gpt2_layer(block: Block, projections: list[Linear], scale: float, gelu: str, *, transposed: bool) -> Layer:
    sizes = block.sizes
    output, up, down = (
        whole(block, name, rows, columns, transposed)
        for name, rows, columns in (
            ("attn.c_proj", sizes.hidden, sizes.query),
            ("mlp.c_fc", sizes.intermediate, sizes.hidden),
            ("mlp.c_proj", sizes.hidden, sizes.intermediate),
        )
    )
    attention = block.attention(None, projections=projections, output=output, scale=scale)
    return block.layer(
        pre(block.norm("ln_1"), attention), pre(block.norm("ln_2"), MLP(f"{block.name}.mlp", up, down, gelu))
    )


def whole(block: Block, name: str, rows: int, columns: int, transposed: bool) -> Linear:
    """A matrix with a bias. transposed: whether the checkpoint holds it as [in, out]."""
    full = f"{block.name}.{name}"
    shape = (columns, rows) if transposed else (rows, columns)
    return Linear(full, Rows(f"{full}.weight", shape, transposed=transposed), Rows(f"{full}.bias", (rows,)))


def gpt2_decoder(config: Configuration, sizes: Sizes, layer: Any, names: Names = NAMES) -> Decoder:
    return decoder(
        config,
        sizes,
        layer,
        names=names,
        norms=NORMS,
        tied=config.flag("tie_word_embeddings", True),
        embedding={"positions": "transformer.wpe.weight", "position_count": sizes.context_length},
        ignored=(rf"transformer\.h\.\d+\.{re.escape(names.attention)}\.(masked_)?bias",),
    )
