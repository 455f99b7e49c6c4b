"""ModernBERT as a decoder (`modernbert-decoder`): Ettin. LayerNorms, windows on most layers, two rotary bases.

The embedding has a norm, the first layer has none before its attention, and a layer stands before the head.
"""

from __future__ import annotations

from typing import Any

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import (
    MOST_HEADS,
    activation,
    head_size,
    layer_count,
    layer_types,
    rotary_by_type,
    windows_of,
    without_effect,
)
from drupe_model_builder.parts.head_layer import HeadLayer
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rows import Rows
from drupe_model_builder.parts.step import Layer, pre, step

NAMES = Names(
    embedding="model.embeddings.tok_embeddings",
    attention="attn",
    output="Wo",
    down="Wo",
    final_norm="model.final_norm",
    head="decoder",
)
BASES = {"full_attention": ("global_rope_theta", 160_000.0), "sliding_attention": ("local_rope_theta", 10_000.0)}
UNUSED = (
    "classifier_pooling", "decoder_start_token_id", "deterministic_flash_attn", "initializer_cutoff_factor",
    "layer_norm_eps", "mlp_dropout", "position_embedding_type", "reference_compile", "repad_logits_with_grad",
    "sparse_pred_ignore_index", "sparse_prediction", "sliding_window",
)  # fmt: skip
"""Keys of published files that this class does not read, and `sliding_window`, which follows from another key."""


def modernbert_decoder(config: Configuration) -> Decoder:
    sizes = _sizes(config)
    gelu = activation(config, key="hidden_activation", default="gelu")
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    norms: dict[str, Any] = {"kind": "layer", "bias": config.flag("norm_bias", False)}
    every = config.integer("global_attn_every_n_layers", 3)
    usual = ["sliding_attention" if layer % every else "full_attention" for layer in range(sizes.layers)]
    types = layer_types(config, usual)
    if "local_attention" in config and config["local_attention"] is None:
        raise config.mistake("local_attention = null: it must say how many tokens a window has")
    # ModernBERT's window reaches to both sides, and this one backwards only.
    windows = windows_of(types, config.integer("local_attention", 128) // 2)
    rotaries = rotary_by_type(
        config.with_values({"rope_parameters": _rope(config)}), sizes, sliding_theta=10_000.0, full_theta=160_000.0
    )
    without_effect(config, *UNUSED)

    def layer(block: Block) -> Layer:
        number = block.number
        attention = block.attention(rotaries[types[number]], bias=bias, output_bias=bias, window=windows[number])
        first = step(attention) if number == 0 else pre(block.norm("attn_norm"), attention)
        mlp = block.gated_mlp(gelu, fused="Wi", bias=mlp_bias)
        return block.layer(first, pre(block.norm("mlp_norm"), mlp))

    return decoder(
        config,
        sizes,
        layer,
        names=NAMES,
        norms=norms,
        tied=config.flag("tie_word_embeddings", True),
        embedding={"norm": Norm("model.embeddings.norm", (sizes.hidden,), sizes.epsilon, **norms)},
        head={
            "bias": "decoder.bias" if config.flag("decoder_bias", True) else None,
            "layer": _head_layer(config, sizes, norms),
        },
    )


def _sizes(config: Configuration) -> Sizes:
    hidden, heads = config.integer("hidden_size", 768), config.integer("num_attention_heads", 12, most=MOST_HEADS)
    return Sizes(
        vocab_size=config.integer("vocab_size", 50368),
        hidden=hidden,
        intermediate=config.integer("intermediate_size", 1152),
        heads=heads,
        kv_heads=heads,
        head_dim=head_size(config, hidden, heads, "hidden_size", "num_attention_heads"),
        layers=layer_count(config),
        context_length=config.integer("max_position_embeddings", 8192),
        epsilon=config.epsilon("norm_eps", 1e-5),
    )


def _rope(config: Configuration) -> dict[str, Any]:
    """The parameters of each type of layer. A scaling on the top level is that of both."""
    nested, scaling = config.part("rope_parameters"), config.part("rope_scaling")
    return {
        kind: {"rope_type": "default", "rope_theta": config.number(key, usual), **nested.part(kind), **scaling}
        for kind, (key, usual) in BASES.items()
    }


def _head_layer(config: Configuration, sizes: Sizes, norms: dict[str, Any]) -> HeadLayer:
    name, hidden = "lm_head.dense", sizes.hidden
    bias = Rows(f"{name}.bias", (hidden,)) if config.flag("classifier_bias", False) else None
    return HeadLayer(
        Linear(name, Rows(f"{name}.weight", (hidden, hidden)), bias),
        activation(config, key="classifier_activation", default="gelu"),
        Norm("lm_head.norm", (hidden,), sizes.epsilon, **norms),
    )
