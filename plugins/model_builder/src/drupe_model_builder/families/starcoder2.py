"""StarCoder 2: Llama with LayerNorms, biases, an MLP without a gate, and an optional sliding window."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of, sliding_window
from drupe_model_builder.parts.step import Layer

NAMES = Names(up="c_fc", down="c_proj")
NORMS = {"kind": "layer", "bias": True}


def starcoder2(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=4096, kv_heads=2, epsilon=1e-5, epsilon_key="norm_epsilon")
    rotary, gelu = rotary_of(config, sizes), activation(config, default="gelu_pytorch_tanh")
    bias = config.flag("use_bias", True)
    window = sliding_window(config, 4096) if "sliding_window" in config else None

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, window=window)
        return block.pre_norm(attention, block.plain_mlp(gelu, bias=bias))

    return decoder(config, sizes, layer, names=NAMES, norms=NORMS, tied=config.flag("tie_word_embeddings", True))
