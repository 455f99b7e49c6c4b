"""GPT-BigCode (StarCoder 1): GPT-2 with one head of keys and values."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block
from drupe_model_builder.configuration.reading import activation
from drupe_model_builder.families.gpt2 import IN_THE_GRAPH, gpt2_decoder, gpt2_layer, gpt2_scale, gpt2_sizes
from drupe_model_builder.parts.rows import by_head, one_after_another
from drupe_model_builder.parts.step import Layer


def gpt_bigcode(config: Configuration) -> Decoder:
    """One head of keys and values, unless `multi_query` is false."""
    shared = config.flag("multi_query", True)
    sizes = gpt2_sizes(config, kv_heads=1 if shared else None)
    gelu = activation(config, key="activation_function", default="gelu_pytorch_tanh")
    size = sizes.head_dim
    rows = one_after_another([sizes.query, size, size]) if shared else by_head([size] * 3, sizes.heads)

    def layer(block: Block) -> Layer:
        projections = block.split("attn.c_attn", sizes.hidden, rows, IN_THE_GRAPH, bias=True)
        return gpt2_layer(block, projections, gpt2_scale(config, sizes), gelu, transposed=False)

    return gpt2_decoder(config, sizes, layer)
