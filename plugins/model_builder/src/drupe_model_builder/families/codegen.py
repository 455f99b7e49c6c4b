"""CodeGen: GPT-J whose query, value and key are in one matrix, in four groups that were made for four devices."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import activation
from drupe_model_builder.families.gptj import NAMES, NORMS, gptj_sizes, partly_rotated
from drupe_model_builder.parts.rows import by_head
from drupe_model_builder.parts.step import Branch, Layer, side_by_side

DEVICES = 4
IN_THE_GRAPH = ("attn.q_proj", "attn.k_proj", "attn.v_proj")


def codegen(config: Configuration) -> Decoder:
    sizes = gptj_sizes(config)
    rotary, gelu = partly_rotated(config, sizes), activation(config, key="activation_function", default="gelu_new")
    if sizes.heads % DEVICES:
        raise config.mistake(f"n_head = {sizes.heads} is not a multiple of {DEVICES}")
    query, value, key = by_head([sizes.query // DEVICES] * 3, DEVICES)

    def layer(block: Block) -> Layer:
        projections = block.split("attn.qkv_proj", sizes.hidden, [query, key, value], IN_THE_GRAPH)
        attention, mlp = block.attention(rotary, projections=projections), block.plain_mlp(gelu, bias=True)
        return block.layer(side_by_side(block.norm("ln_1"), Branch(attention), Branch(mlp)))

    return decoder(
        config,
        sizes,
        layer,
        names=NAMES,
        norms=NORMS,
        head={"bias": "lm_head.bias"},
        ignored=(r"transformer\.h\.\d+\.attn\.(causal_mask|masked_bias|bias|embed_positions)",),
    )
