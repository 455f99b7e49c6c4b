"""GPT-NeoX and Pythia: LayerNorms, attention and MLP side by side, each after a norm of its own."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.rows import by_head
from drupe_model_builder.parts.step import Branch, Layer, pre, side_by_side

NAMES = Names(
    embedding="gpt_neox.embed_in",
    layer="gpt_neox.layers.{}",
    attention="attention",
    output="dense",
    up="dense_h_to_4h",
    down="dense_4h_to_h",
    final_norm="gpt_neox.final_layer_norm",
    head="embed_out",
)
NORMS = {"kind": "layer", "bias": True}
ALIASES = ((r"^lm_head\.", "embed_out."),)
"""transformers' own name of the head."""
IN_THE_GRAPH = ("attention.q_proj", "attention.k_proj", "attention.v_proj")


def gpt_neox(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048, epsilon=1e-5, epsilon_key="layer_norm_eps", grouped=False)
    rotary, gelu = rotary_of(config, sizes, partial=0.25), activation(config, default="gelu")
    bias, parallel = config.flag("attention_bias", True), config.flag("use_parallel_residual", True)
    rows = by_head([sizes.head_dim] * 3, sizes.heads)

    def layer(block: Block) -> Layer:
        projections = block.split("attention.query_key_value", sizes.hidden, rows, IN_THE_GRAPH, bias=bias)
        attention = block.attention(rotary, projections=projections, output_bias=bias)
        mlp = block.plain_mlp(gelu, bias=True)
        before, after = block.norm("input_layernorm"), block.norm("post_attention_layernorm")
        if parallel:
            return block.layer(side_by_side(None, Branch(attention, before=before), Branch(mlp, before=after)))
        return block.layer(pre(before, attention), pre(after, mlp))

    return decoder(
        config,
        sizes,
        layer,
        names=NAMES,
        norms=NORMS,
        aliases=ALIASES,
        ignored=(r"gpt_neox\.layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq)",),
    )
