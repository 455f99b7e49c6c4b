"""Apertus: Llama with norms of each head's query and key, and an MLP without a gate whose activation is xIELU."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of, with_rotary
from drupe_model_builder.parts.activations import Xielu
from drupe_model_builder.parts.step import Layer, pre

XIELU = "xielu"
USUAL_ROTARY = {
    "rope_type": "llama3",
    "rope_theta": 12_000_000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


def apertus(config: Configuration) -> Decoder:
    config = with_rotary(config, USUAL_ROTARY)
    sizes = sizes_of(config, context_length=65536, epsilon=1e-5)
    rotary, bias = rotary_of(config, sizes, theta=12_000_000.0), config.flag("attention_bias", False)
    plain = None if config.text("hidden_act", XIELU) == XIELU else activation(config)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, head_norm=True)
        mlp = block.plain_mlp(plain or Xielu(f"{block.name}.mlp.act_fn"))
        return block.layer(
            pre(block.norm("attention_layernorm"), attention), pre(block.norm("feedforward_layernorm"), mlp)
        )

    return decoder(config, sizes, layer)
