"""InternLM 2 and 2.5: Llama with one matrix for query, key and value, which holds them group by group."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.rows import by_head
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(embedding="model.tok_embeddings", attention="attention", output="wo", mlp="feed_forward", gate="w1",
              up="w3", down="w2", head="output")  # fmt: skip
IN_THE_GRAPH = ("attention.q_proj", "attention.k_proj", "attention.v_proj")


def internlm2(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, epsilon=1e-6)
    rotary, silu, bias = rotary_of(config, sizes), activation(config), config.flag("bias", False)
    size = sizes.head_dim
    rows = by_head([sizes.heads // sizes.kv_heads * size, size, size], sizes.kv_heads)

    def layer(block: Block) -> Layer:
        projections = block.split("attention.wqkv", sizes.hidden, rows, IN_THE_GRAPH, bias=bias)
        attention = block.attention(rotary, projections=projections, output_bias=bias)
        return block.layer(
            pre(block.norm("attention_norm"), attention), pre(block.norm("ffn_norm"), block.gated_mlp(silu))
        )

    return decoder(config, sizes, layer, names=NAMES)
