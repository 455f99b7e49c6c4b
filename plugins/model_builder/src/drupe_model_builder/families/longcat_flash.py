"""LongCat Flash: two latent attentions and two MLPs in each layer, beside experts of which some compute nothing.

The experts read what the first MLP reads, and their result joins the residual behind the second one.
"""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import (
    MOST_EXPERTS,
    ExpertNames,
    ExpertSizes,
    expert_sizes,
    experts_of,
    refuse_other_activations,
)
from drupe_model_builder.configuration.latent import (
    LatentSizes,
    latent_attention_of,
    latent_rotary,
    latent_scale,
    refuse_other_words,
    sizes_with_latents,
)
from drupe_model_builder.configuration.reading import activation, not_built
from drupe_model_builder.parts.step import Branch, Layer, Step, pre

NAMES = ExpertNames(router="router.classifier")
SPELLINGS = {
    "num_layers": "num_hidden_layers",
    "ffn_hidden_size": "intermediate_size",
    "expert_ffn_hidden_size": "moe_intermediate_size",
}


def longcat_flash(config: Configuration) -> Decoder:
    config = config.with_spellings(SPELLINGS).with_defaults({"rope_theta": 10_000_000.0})
    usual = LatentSizes(1536, 512, 128, 64, 128)
    sizes, latent = sizes_with_latents(config, usual, context_length=131072, epsilon=1e-5)
    if latent.query_rank is None:
        raise config.mistake("q_lora_rank = null, but LongCat makes its queries from a latent")
    rotary, silu, bias = latent_rotary(config, sizes), activation(config), config.flag("attention_bias", False)
    many, idle = expert_sizes(config, (512, 12, 2048)), _idle(config)
    router_bias, factor = config.flag("router_bias", False), config.number("routed_scaling_factor", 6.0)
    scale = latent_scale(config, latent) * _widened(config, "mla_scale_q_lora", sizes.hidden, latent.query_rank)
    expanded = _widened(config, "mla_scale_kv_lora", sizes.hidden, latent.rank)
    refuse_other_activations(config)

    def half(block: Block, which: int) -> tuple[Step, Step]:
        """One attention and one MLP. Caches are numbered by attention, and tensors by layer."""
        names = replace(block.names, layer=block.name, attention=f"self_attn.{which}", mlp=f"mlps.{which}")
        own = replace(block, number=2 * block.number + which, names=names)
        attention = latent_attention_of(own, latent, rotary, scale, bias=bias)
        attention = replace(attention, expansion=replace(attention.expansion, factor=expanded))
        return (
            pre(own.norm(f"input_layernorm.{which}"), attention),
            pre(own.norm(f"post_attention_layernorm.{which}"), own.gated_mlp(silu)),
        )

    def layer(block: Block) -> Layer:
        experts = experts_of(
            block,
            many,
            NAMES,
            bias=router_bias,
            choice_bias="router.e_score_correction_bias",
            normalise=False,
            factor=factor,
            idle=idle,
        )
        attention, mlp = half(block, 0)
        beside = replace(mlp, branches=(*mlp.branches, Branch(experts, later=2)))
        return block.layer(attention, beside, *half(block, 1))

    return decoder(config, sizes, layer, ignored=(r"model\.mtp.*", *_unused(many, idle)))


def _idle(config: Configuration) -> int:
    """How many experts give their input back."""
    refuse_other_words(config, "zero_expert_type", "identity")
    if config.flag("norm_topk_prob", False):
        cure = "remove the key to get what transformers computes, which ignores it"
        raise not_built(config, "norm_topk_prob", True, "divides the weights of experts by their sum", cure)
    without = "zero_expert_num" in config and config["zero_expert_num"] in (None, 0)
    return 0 if without else config.integer("zero_expert_num", 256, most=MOST_EXPERTS)


def _widened(config: Configuration, key: str, hidden: int, rank: int) -> float:
    """The factor that a latent has because it is narrower than the hidden state."""
    return (hidden / rank) ** 0.5 if config.flag(key, True) else 1.0


def _unused(many: ExpertSizes, idle: int) -> tuple[str, ...]:
    """The matrices that transformers saves for experts that compute nothing."""
    numbers = "|".join(str(many.count + each) for each in range(idle))
    return (rf"model\.layers\.\d+\.mlp\.experts\.({numbers})\..*",) if idle else ()
