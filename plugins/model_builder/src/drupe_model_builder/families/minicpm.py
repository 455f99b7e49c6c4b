"""MiniCPM 1 and 2: Llama with factors on the embedding, the residual and the logits."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer


def minicpm(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048)
    rotary, silu, bias = rotary_of(config, sizes), activation(config), config.flag("attention_bias", False)
    factor = config.number("scale_depth", 1.0) / sizes.layers**0.5
    base = config.number("dim_model_base", 1.0, above=0)

    def layer(block: Block) -> Layer:
        return block.pre_norm(block.attention(rotary, bias=bias, output_bias=bias), block.gated_mlp(silu), factor)

    return decoder(
        config,
        sizes,
        layer,
        embedding={"factor": config.number("scale_emb", 1.0)},
        head={"factor": base / sizes.hidden},
        tied=config.flag("tie_word_embeddings", True),
    )
