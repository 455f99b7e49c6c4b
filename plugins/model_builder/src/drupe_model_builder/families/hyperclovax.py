"""HyperCLOVA X: Granite with a norm on each result, and logits that are multiplied by `logits_scaling`."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer, step


def hyperclovax(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048)
    rotary, silu = rotary_of(config, sizes), activation(config)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    scale = config.number("attention_multiplier", sizes.head_dim**-0.5)
    factor, after = config.number("residual_multiplier", 1.0), config.flag("use_post_norm", True)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, scale=scale)
        mlp = block.gated_mlp(silu, bias=mlp_bias)
        norms = [block.norm(name) if after else None for name in ("post_norm1", "post_norm2")]
        return block.layer(
            step(attention, before=block.norm("input_layernorm"), after=norms[0], factor=factor),
            step(mlp, before=block.norm("post_attention_layernorm"), after=norms[1], factor=factor),
        )

    return decoder(
        config,
        sizes,
        layer,
        embedding={"factor": config.number("embedding_multiplier", 1.0)},
        head={"factor": config.number("logits_scaling", 1.0)},
    )
