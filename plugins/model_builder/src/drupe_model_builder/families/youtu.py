"""Youtu-LLM: Llama with DeepSeek's latent attention."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.latent import (
    LatentSizes,
    latent_attention_of,
    latent_rotary,
    latent_scale,
    sizes_with_latents,
)
from drupe_model_builder.configuration.reading import activation
from drupe_model_builder.parts.step import Layer


def youtu(config: Configuration) -> Decoder:
    sizes, latent = sizes_with_latents(config, LatentSizes(1536, 512, 128, 64, 128), context_length=131072)
    rotary, scale, silu = latent_rotary(config, sizes), latent_scale(config, latent), activation(config)
    bias = config.flag("attention_bias", False)

    def layer(block: Block) -> Layer:
        mixer = latent_attention_of(block, latent, rotary, scale, bias=bias)
        return block.pre_norm(mixer, block.gated_mlp(silu))

    return decoder(config, sizes, layer, tied=config.flag("tie_word_embeddings", True))
