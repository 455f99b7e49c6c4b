"""nanochat: RMS norms without weights, also after the embedding and after the rotation of query and key.

It rotates the other way round than Llama.
"""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.families.gemma2 import softcap
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.step import Layer

NAMES = Names(up="fc1", down="fc2")
NORMS = {"weight": False}


def nanochat(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=2048)
    rotary, relu2 = rotary_of(config, sizes), activation(config, default="relu2")
    rotary = replace(rotary, frequencies=tuple(-each for each in rotary.frequencies))
    bias = config.flag("attention_bias", False)

    def layer(block: Block) -> Layer:
        attention = block.attention(rotary, bias=bias, output_bias=bias, head_norm=True, norm_after_rotary=True)
        return block.pre_norm(attention, block.plain_mlp(relu2))

    return decoder(
        config,
        sizes,
        layer,
        names=NAMES,
        norms=NORMS,
        embedding={"norm": Norm("model.embed_norm", (sizes.hidden,), sizes.epsilon, weight=False)},
        head={"softcap": softcap(config, "final_logit_softcapping", 15.0)},
    )
