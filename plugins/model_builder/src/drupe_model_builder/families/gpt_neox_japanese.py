"""GPT-NeoX Japanese: GPT-NeoX whose halves come one after the other, without biases but one in the last layer."""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import MOST_HEADS, activation, head_size, layer_count, rotary_of
from drupe_model_builder.families.gpt_neox import IN_THE_GRAPH, NORMS
from drupe_model_builder.families.gpt_neox import NAMES as GPT_NEOX
from drupe_model_builder.parts.rows import Rows, by_head
from drupe_model_builder.parts.step import Layer

NAMES: Names = replace(
    GPT_NEOX,
    embedding="gpt_neox_japanese.embed_in",
    layer="gpt_neox_japanese.layers.{}",
    final_norm="gpt_neox_japanese.final_layer_norm",
)
SPELLINGS = {"rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor"}


def gpt_neox_japanese(config: Configuration) -> Decoder:
    config = config.with_spellings(SPELLINGS)
    sizes = _sizes(config)
    rotary, gelu = rotary_of(config, sizes, partial=1.0), activation(config, default="gelu")
    rows = by_head([sizes.head_dim] * 3, sizes.heads)

    def layer(block: Block) -> Layer:
        output = block.linear("attention.dense", sizes.hidden, sizes.query)
        if block.number == sizes.layers - 1:
            output = replace(output, bias=Rows(f"{block.name}.attention.dense_bias", (sizes.hidden,)))
        projections = block.split("attention.query_key_value", sizes.hidden, rows, IN_THE_GRAPH)
        attention = block.attention(rotary, projections=projections, output=output)
        return block.pre_norm(attention, block.plain_mlp(gelu))

    tied = config.flag("tie_word_embeddings", True)
    return decoder(config, sizes, layer, names=NAMES, norms=NORMS, tied=tied)


def _sizes(config: Configuration) -> Sizes:
    hidden, heads = config.integer("hidden_size", 2560), config.integer("num_attention_heads", 32, most=MOST_HEADS)
    return Sizes(
        vocab_size=config.integer("vocab_size", 32000),
        hidden=hidden,
        intermediate=int(hidden * config.number("intermediate_multiple_size", 4, above=0)),
        heads=heads,
        kv_heads=heads,
        head_dim=head_size(config, hidden, heads, "hidden_size", "num_attention_heads"),
        layers=layer_count(config),
        context_length=config.integer("max_position_embeddings", 2048),
        epsilon=config.epsilon("layer_norm_eps", 1e-5),
    )
