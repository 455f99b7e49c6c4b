"""VaultGemma: Gemma 2 without the norms on the results."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.families.gemma2 import capped_attention, every_other_window, gemma_decoder
from drupe_model_builder.parts.step import Layer, pre


def vaultgemma(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=8192, kv_heads=4, head_dim=256)
    rotary, windows = rotary_of(config, sizes), every_other_window(config, sizes)
    gelu = activation(config, key="hidden_activation", default="gelu_pytorch_tanh")

    def layer(block: Block) -> Layer:
        attention = capped_attention(config, block, rotary, windows[block.number])
        return block.layer(
            pre(block.norm("input_layernorm"), attention),
            pre(block.norm("pre_feedforward_layernorm"), block.gated_mlp(gelu)),
        )

    return gemma_decoder(config, sizes, layer, capped=30.0)
