"""CTRL: LayerNorms, biases, sinusoids in place of learned positions, and a head with a bias."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import MOST_HEADS, MOST_LAYERS, head_size, sinusoid_width
from drupe_model_builder.parts.sinusoids import Sinusoids
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(embedding="transformer.w", layer="transformer.h.{}", attention="multi_head_attention", query="Wq",
              key="Wk", value="Wv", output="dense", mlp="ffn", up="0", down="2",
              final_norm="transformer.layernorm")  # fmt: skip
EPSILON = 1e-6
"""Of the norms in layers, whatever `layer_norm_epsilon` says."""


def ctrl(config: Configuration) -> Decoder:
    sizes = _sizes(config)

    def layer(block: Block) -> Layer:
        attention = block.attention(None, bias=True, output_bias=True)
        return block.layer(
            pre(block.norm("layernorm1", epsilon=EPSILON), attention),
            pre(block.norm("layernorm2", epsilon=EPSILON), block.plain_mlp("relu", bias=True)),
        )

    return decoder(
        config,
        sizes,
        layer,
        names=NAMES,
        norms={"kind": "layer", "bias": True},
        tied=config.flag("tie_word_embeddings", True),
        embedding={
            "factor": sizes.hidden**0.5,
            "positions": Sinusoids("transformer.pos_encoding", _frequencies(sizes.hidden), sizes.context_length),
            "position_count": sizes.context_length,
        },
        head={"bias": "lm_head.bias"},
    )


def _frequencies(size: int) -> tuple[float, ...]:
    return tuple(10_000.0 ** -(2 * pair / size) for pair in range(size // 2))


def _sizes(config: Configuration) -> Sizes:
    hidden, heads = sinusoid_width(config, "n_embd", 1280), config.integer("n_head", 16, most=MOST_HEADS)
    return Sizes(
        vocab_size=config.integer("vocab_size", 246534),
        hidden=hidden,
        intermediate=config.integer("dff", 8192),
        heads=heads,
        kv_heads=heads,
        head_dim=head_size(config, hidden, heads, "n_embd", "n_head"),
        layers=config.integer("n_layer", 48, most=MOST_LAYERS),
        context_length=config.integer("n_positions", 256),
        epsilon=config.epsilon("layer_norm_epsilon", EPSILON),
    )
