"""OPT and Galactica: LayerNorms, learned positions that begin at row 2, and an MLP without a gate."""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import (
    MOST_HEADS,
    activation,
    head_size,
    layer_count,
    not_built,
    without_effect,
)
from drupe_model_builder.parts.head_layer import HeadLayer
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.rows import Rows
from drupe_model_builder.parts.step import Layer, pre, step

NAMES = Names(
    embedding="model.decoder.embed_tokens",
    layer="model.decoder.layers.{}",
    output="out_proj",
    mlp="",
    up="fc1",
    down="fc2",
    final_norm="model.decoder.final_layer_norm",
)
FIRST_POSITION = 2
WITHOUT_EFFECT = ("activation_dropout", "init_std", "learned_embeddings", "scale_embeddings")
"""Keys of published files: of training, and Galactica's, which transformers does not read."""


def opt(config: Configuration) -> Decoder:
    before = config.flag("do_layer_norm_before", True)
    if config.flag("_remove_final_layer_norm", False) and before:
        cure = "choose another size of the model, such as OPT-125M or OPT-1.3B"
        raise not_built(config, "_remove_final_layer_norm", True, "leaves out the norm before the head", cure)
    without_effect(config, *WITHOUT_EFFECT)
    sizes = _sizes(config)
    relu, bias = activation(config, key="activation_function", default="relu"), config.flag("enable_bias", True)
    weighted, last = config.flag("layer_norm_elementwise_affine", True), sizes.layers - 1

    def layer(block: Block) -> Layer:
        attention, mlp = block.attention(None, bias=bias, output_bias=bias), block.plain_mlp(relu, bias=bias)
        first, second = block.norm("self_attn_layer_norm"), block.norm("final_layer_norm")
        if before:
            return block.layer(pre(first, attention), pre(second, mlp))
        # The norm that closes the last layer is the one before the head.
        closing = None if block.number == last else second
        return block.layer(replace(step(attention), closing=first), replace(step(mlp), closing=closing))

    inward, outward = _narrow_ends(config, sizes)
    return decoder(
        config,
        sizes,
        layer,
        names=NAMES if before else replace(NAMES, final_norm=f"{NAMES.layer.format(last)}.final_layer_norm"),
        norms={"kind": "layer", "weight": weighted, "bias": weighted},
        tied=config.flag("tie_word_embeddings", True),
        embedding={
            "positions": "model.decoder.embed_positions.weight",
            "position_count": sizes.context_length + FIRST_POSITION,
            "position_offset": FIRST_POSITION,
            "inward": inward,
        },
        head={"layer": outward and HeadLayer(outward)},
    )


def _narrow_ends(config: Configuration, sizes: Sizes) -> tuple[Linear | None, Linear | None]:
    """The products behind the embedding and before the head, which OPT-350M has because its table is narrower."""
    width = config.integer("word_embed_proj_dim", sizes.hidden)
    if width == sizes.hidden:
        return None, None
    shapes = {"project_in": (sizes.hidden, width), "project_out": (width, sizes.hidden)}
    inward, outward = (
        Linear(f"model.decoder.{name}", Rows(f"model.decoder.{name}.weight", shape)) for name, shape in shapes.items()
    )
    return inward, outward


def _sizes(config: Configuration) -> Sizes:
    hidden, heads = config.integer("hidden_size", 768), config.integer("num_attention_heads", 12, most=MOST_HEADS)
    return Sizes(
        vocab_size=config.integer("vocab_size", 50272),
        hidden=hidden,
        intermediate=config.integer("ffn_dim", 3072),
        heads=heads,
        kv_heads=heads,
        head_dim=head_size(config, hidden, heads, "hidden_size", "num_attention_heads"),
        layers=layer_count(config),
        context_length=config.integer("max_position_embeddings", 2048),
        epsilon=1e-5,
    )
