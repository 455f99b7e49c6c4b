"""MiniCPM 3: MiniCPM with DeepSeek's latent attention, of which halves are rotated."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.latent import (
    LatentSizes,
    latent_attention_of,
    latent_scale,
    sizes_with_latents,
)
from drupe_model_builder.configuration.reading import activation, rotary_of
from drupe_model_builder.parts.step import Layer


def minicpm3(config: Configuration) -> Decoder:
    value = config.integer("hidden_size") // config.integer("num_attention_heads")
    sizes, latent = sizes_with_latents(config, LatentSizes(768, 256, 64, 32, value), context_length=32768, epsilon=1e-5)
    rotary, scale, silu = rotary_of(config, sizes), latent_scale(config, latent), activation(config)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    depth, base = _or_none(config, "scale_depth", 1.4), _or_none(config, "dim_model_base", 256)
    factor = 1.0 if depth is None else depth / sizes.layers**0.5

    def layer(block: Block) -> Layer:
        mixer = latent_attention_of(block, latent, rotary, scale, bias=bias)
        return block.pre_norm(mixer, block.gated_mlp(silu, bias=mlp_bias), factor)

    return decoder(
        config,
        sizes,
        layer,
        embedding={"factor": config.number("scale_emb", 12.0)},
        head={"factor": 1.0 if base is None else base / sizes.hidden},
        tied=config.flag("tie_word_embeddings", True),
    )


def _or_none(config: Configuration, key: str, usual: float) -> float | None:
    """A number above 0; null means that nothing is scaled, and a missing key the family's own number."""
    return None if key in config and config[key] is None else config.number(key, usual, above=0)
