"""Falcon-H1: attention and Mamba-2 side by side in every layer, with factors nearly everywhere."""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, decoder
from drupe_model_builder.configuration.reading import activation, not_built, rotary_of, sizes_of
from drupe_model_builder.families.mamba2 import INPUTS, hybrid_sizes, mixer_of
from drupe_model_builder.parts.step import Branch, Layer, pre, side_by_side

NAMES = Names(mlp="feed_forward", final_norm="model.final_layernorm")


def falcon_h1(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=8192, kv_heads=8, epsilon=1e-5)
    rotary, silu = rotary_of(config, sizes), activation(config)
    width = None if config.get("mamba_d_ssm") is None else config.integer("mamba_d_ssm")
    mamba, bias, mlp_bias = (
        hybrid_sizes(config, width),
        config.flag("attention_bias", False),
        config.flag("mlp_bias", False),
    )
    attends, mixes = config.number("attention_in_multiplier", 1.0), config.number("ssm_in_multiplier", 1.0)
    _refuse_biases(config, bias, attends, "attention_in_multiplier")
    _refuse_biases(config, mamba.bias, mixes, "ssm_in_multiplier")
    inputs = [mixes * factor for factor in _factors(config, "ssm_multipliers", len(INPUTS))]
    gate_factor, down_factor = _factors(config, "mlp_multipliers", 2)
    # A factor on attention's input is one on query, key and value; those on query and key are one on their product.
    scale = sizes.head_dim**-0.5 * attends**2 * config.number("key_multiplier", 1.0)
    of_attention = attends * config.number("attention_out_multiplier", 1.0)
    of_mamba = config.number("ssm_out_multiplier", 1.0)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, scale=scale)
        mixer = mixer_of(
            block,
            mamba,
            "mamba",
            normed=config.flag("mamba_rms_norm", False),
            gate_first=not config.flag("mamba_norm_before_gate", True),
            output_bias=config.flag("projectors_bias", False),
            factors=inputs,
        )
        mlp = block.gated_mlp(silu, bias=mlp_bias)
        assert mlp.gate is not None
        mlp = replace(mlp, gate=replace(mlp.gate, factor=gate_factor), down=replace(mlp.down, factor=down_factor))
        return block.layer(
            side_by_side(
                block.norm("input_layernorm"), Branch(mixer, factor=of_mamba), Branch(attention, factor=of_attention)
            ),
            pre(block.norm("pre_ff_layernorm"), mlp),
        )

    return decoder(
        config,
        sizes,
        layer,
        names=NAMES,
        embedding={"factor": config.number("embedding_multiplier", 1.0)},
        head={"factor": config.number("lm_head_multiplier", 1.0)},
    )


def _factors(config: Configuration, key: str, count: int) -> list[float]:
    """A list of factors; all 1 where the key is missing."""
    value = config.get(key)
    factors = [1.0] * count if value is None else value
    numbers = isinstance(factors, list) and all(
        isinstance(each, int | float) and not isinstance(each, bool) for each in factors
    )
    if not numbers or len(factors) != count:
        raise config.mistake(f"{key} wants {count} numbers")
    return list(map(float, factors))


def _refuse_biases(config: Configuration, bias: bool, factor: float, key: str) -> None:
    """A factor on the input is computed on the result, which is the same only without a bias."""
    if bias and factor != 1.0:
        raise not_built(
            config,
            key,
            factor,
            "scales an input beside biases",
            f"set {key} to 1.0 if the model was trained without it; otherwise choose a checkpoint without biases",
        )
