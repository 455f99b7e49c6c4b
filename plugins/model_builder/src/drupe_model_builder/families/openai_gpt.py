"""The first GPT (`openai-gpt`): GPT-2 whose LayerNorms follow each sum with the residual, and stand nowhere before."""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.reading import not_built
from drupe_model_builder.families.gpt2 import IN_THE_GRAPH, NAMES, NORMS, gpt2_sizes, whole
from drupe_model_builder.parts.mlp import MLP
from drupe_model_builder.parts.rows import one_after_another
from drupe_model_builder.parts.step import Layer, step

ACTIVATIONS = {"gelu": "gelu_new", "relu": "relu", "silu": "silu", "swish": "silu"}
"""The words of `afn`: this class calls the tanh form of GELU by its plain name."""


def openai_gpt(config: Configuration) -> Decoder:
    sizes = gpt2_sizes(config, kv_heads=None, vocab_size=40478, context_length=512)
    rows = one_after_another([sizes.query, sizes.key, sizes.key])
    activation, last = _activation(config), sizes.layers - 1

    def layer(block: Block) -> Layer:
        projections = block.split("attn.c_attn", sizes.hidden, rows, IN_THE_GRAPH, bias=True, transposed=True)
        output = whole(block, "attn.c_proj", sizes.hidden, sizes.query, True)
        attention = block.attention(None, projections=projections, output=output)
        up = whole(block, "mlp.c_fc", sizes.intermediate, sizes.hidden, True)
        down = whole(block, "mlp.c_proj", sizes.hidden, sizes.intermediate, True)
        mlp = step(MLP(f"{block.name}.mlp", up, down, activation))
        # The norm that closes the last layer is the one before the head.
        closing = None if block.number == last else block.norm("ln_2")
        return block.layer(replace(step(attention), closing=block.norm("ln_1")), replace(mlp, closing=closing))

    return decoder(
        config,
        sizes,
        layer,
        names=replace(NAMES, embedding="transformer.tokens_embed", final_norm=f"transformer.h.{last}.ln_2"),
        norms=NORMS,
        tied=config.flag("tie_word_embeddings", True),
        embedding={"positions": "transformer.positions_embed.weight", "position_count": sizes.context_length},
        ignored=(r"transformer\.h\.\d+\.attn\.bias", r"transformer\.position_ids"),
    )


def _activation(config: Configuration) -> str:
    name = config.text("afn", "gelu")
    if name not in ACTIVATIONS:
        cure = f"correct afn if it is misspelt; supported: {', '.join(ACTIVATIONS)}"
        raise not_built(config, "afn", name, "asks for another activation", cure)
    return ACTIVATIONS[name]
