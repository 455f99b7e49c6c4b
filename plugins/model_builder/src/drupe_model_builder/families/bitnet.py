"""BitNet: Llama with a norm before each half's last product, and a squared ReLU on the gate.

The checkpoint's weights are floats; packed ternary weights are refused where the checkpoint is read.
"""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer


def bitnet(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, kv_heads=5, epsilon=1e-5)
    rotary, relu2 = rotary_of(config, sizes, theta=500_000.0), activation(config, default="relu2")
    bias = config.flag("attention_bias", False)

    def layer(block: Block) -> Layer:
        attention = block.attention(
            rotary, bias=bias, output_bias=bias, output_norm=block.norm("self_attn.attn_sub_norm")
        )
        return block.pre_norm(
            attention, block.gated_mlp(relu2, inner_norm=block.norm("mlp.ffn_sub_norm", sizes.intermediate))
        )

    return decoder(config, sizes, layer)
