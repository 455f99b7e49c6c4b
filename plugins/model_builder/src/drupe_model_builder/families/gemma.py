"""Gemma: Llama whose norms store the weight minus one, with an embedding times the root of the hidden size."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer

NORMS = {"offset": 1.0}
TANH = "gelu_pytorch_tanh"


def gemma(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=8192, kv_heads=16, head_dim=256)
    rotary, bias = rotary_of(config, sizes), config.flag("attention_bias", False)
    gelu = activation(config, default=TANH)
    gelu = TANH if gelu == "gelu" else gelu  # the first files say gelu and mean its tanh form

    def layer(block: Block) -> Layer:
        return block.pre_norm(block.attention(rotary, bias=bias, output_bias=bias), block.gated_mlp(gelu))

    return decoder(
        config,
        sizes,
        layer,
        norms=NORMS,
        embedding={"factor": sizes.hidden**0.5},
        tied=config.flag("tie_word_embeddings", True),
    )
