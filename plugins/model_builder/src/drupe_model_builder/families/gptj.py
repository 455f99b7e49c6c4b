"""GPT-J: attention and MLP side by side after one LayerNorm, part of each head rotated by neighbours, a head bias."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import MOST_LAYERS, activation, head_size
from drupe_model_builder.frequencies import rotary
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.step import Branch, Layer, side_by_side

NAMES = Names(
    embedding="transformer.wte",
    layer="transformer.h.{}",
    attention="attn",
    output="out_proj",
    up="fc_in",
    down="fc_out",
    final_norm="transformer.ln_f",
)
NORMS = {"kind": "layer", "bias": True}


def gptj(config: Configuration) -> Decoder:
    sizes = gptj_sizes(config)
    turned = partly_rotated(config, sizes)
    gelu = activation(config, key="activation_function", default="gelu_new")

    def layer(block: Block) -> Layer:
        attention, mlp = block.attention(turned), block.plain_mlp(gelu, bias=True)
        return block.layer(side_by_side(block.norm("ln_1"), Branch(attention), Branch(mlp)))

    return decoder(
        config,
        sizes,
        layer,
        names=NAMES,
        norms=NORMS,
        head={"bias": "lm_head.bias"},
        ignored=(r"transformer\.h\.\d+\.attn\.(masked_bias|bias|embed_positions)",),
    )


def gptj_sizes(config: Configuration) -> Sizes:
    """The sizes of GPT-J and CodeGen."""
    hidden, heads = config.integer("n_embd", 4096), config.integer("n_head", 16)
    return Sizes(
        vocab_size=config.integer("vocab_size", 50400),
        hidden=hidden,
        intermediate=config.integer("n_inner", 4 * hidden),
        heads=heads,
        kv_heads=heads,
        head_dim=head_size(config, hidden, heads, "n_embd", "n_head"),
        layers=config.integer("n_layer", 28, most=MOST_LAYERS),
        context_length=config.integer("n_positions", 2048),
        epsilon=config.epsilon("layer_norm_epsilon", 1e-5),
    )


def partly_rotated(config: Configuration, sizes: Sizes) -> Rotary:
    """A rotary embedding of the first `rotary_dim` elements of a head, all of them for null."""
    whole = "rotary_dim" in config and config["rotary_dim"] is None
    width = sizes.head_dim if whole else config.integer("rotary_dim", 64)
    if width % 2 or width > sizes.head_dim:
        raise config.mistake(
            f"rotary_dim = {width} is not an even number up to the {sizes.head_dim} elements of a head"
        )
    own = Configuration(config.path, {}).rope(width / sizes.head_dim)  # transformers has one base for all of them
    return rotary(own, sizes.head_dim, sizes.context_length, interleaved=True)
