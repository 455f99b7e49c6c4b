"""Nemotron-H: one sublayer a layer: Mamba-2, attention without positions, or an MLP or experts with a squared ReLU."""

from __future__ import annotations

import math

from drupe.api import ModelError, counted, replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, decoder
from drupe_model_builder.configuration.experts import ExpertNames, expert_sizes, experts_of, sigmoid_router
from drupe_model_builder.configuration.reading import activation, layer_count, shared_by, sizes_of, without_effect
from drupe_model_builder.families.mamba2 import NAMES, MambaSizes, mixer_of, refuse_activation
from drupe_model_builder.parts.experts import Experts
from drupe_model_builder.parts.step import Layer, pre

WORDS = {"mamba": "linear_attention", "attention": "full_attention", "M": "linear_attention", "*": "full_attention",
         "-": "mlp", "E": "moe"}  # fmt: skip
"""Older words for kinds of layers, and letters of `hybrid_override_pattern`, with transformers 5's words."""
KINDS = ("linear_attention", "full_attention", "mlp", "moe")
LISTS, PATTERN = ("layers_block_type", "layer_types"), "hybrid_override_pattern"
IGNORED = (r"mtp\..*",)
ALIASES = ((r"^model\.", "backbone."),)
"""transformers' own names."""
EXPERTS = ExpertNames("mixer", gate=None, merged_at="mixer")
OF_SOME = (
    "mamba_proj_bias", "moe_intermediate_size", "moe_latent_size", "moe_shared_expert_intermediate_size", "n_group",
    "n_routed_experts", "n_shared_experts", "num_experts_per_tok", "routed_scaling_factor", "time_step_limit",
    "topk_group",
)  # fmt: skip
"""Keys of Mamba-2 and of experts, which some of these models are without."""


def nemotron_h(config: Configuration) -> Decoder:
    kinds = _kinds(config)
    told = config.with_values({"num_hidden_layers": len(kinds)})
    sizes = sizes_of(
        told, context_length=4096, kv_heads=8, head_dim=128, epsilon=1e-5, epsilon_key="layer_norm_epsilon"
    )
    relu2, mlp_bias = activation(config, key="mlp_hidden_act", default="relu2"), config.flag("mlp_bias", False)
    mamba = _mamba(config)
    without_effect(config, *OF_SOME)

    def layer(block: Block) -> Layer:
        kind, before = kinds[block.number], block.norm("norm")
        if kind == "linear_attention":
            return block.layer(pre(before, mixer_of(block, mamba, "mixer")))
        if kind == "full_attention":
            return block.layer(pre(before, block.attention(None)))
        if kind == "moe":
            return block.layer(pre(before, _experts(config, block, relu2, mlp_bias)))
        return block.layer(pre(before, block.plain_mlp(relu2, bias=mlp_bias)))

    return decoder(told, sizes, layer, names=NAMES, ignored=IGNORED, aliases=ALIASES)


def _experts(config: Configuration, block: Block, relu2: str, bias: bool) -> Experts:
    """Experts and an MLP that every token runs. With `moe_latent_size`, the experts have a hidden size of their own."""
    if relu2 != "relu2":
        raise ModelError(
            f"experts with the activation function mlp_hidden_act = '{relu2}' in {config.path.name} are not supported; "
            "supported: relu2",
            where=config.path,
            cure="correct mlp_hidden_act if it is misspelt; otherwise choose another model",
        )
    hidden = block.sizes.hidden
    width = config.integer("moe_shared_expert_intermediate_size", 7688)
    own = replace(block, sizes=replace(block.sizes, intermediate=width))
    shared = replace(own, names=replace(block.names, mlp="mixer.shared_experts")).plain_mlp(relu2, bias=bias)
    latent = None if config.get("moe_latent_size") is None else config.integer("moe_latent_size")
    router = sigmoid_router(config, "gate.e_score_correction_bias", normalise=True)
    experts = experts_of(
        block, expert_sizes(config, (8, 2, 7688)), EXPERTS, shared=shared, hidden_size=latent, **router
    )
    if latent is None:
        return experts
    inward = block.linear("mixer.fc1_latent_proj", latent, hidden, bias)
    return replace(experts, inward=inward, outward=block.linear("mixer.fc2_latent_proj", hidden, latent, bias))


def _kinds(config: Configuration) -> tuple[str, ...]:
    """What each layer is."""
    key = [*(key for key in (*LISTS, PATTERN) if config.get(key) is not None), LISTS[0]][0]
    listed = tuple(config.text(key)) if key == PATTERN else config.texts(key)
    kinds = tuple(WORDS.get(kind, kind) for kind in listed)
    wrong = [kind for kind in kinds if kind not in KINDS]
    if wrong or not kinds:
        raise config.mistake(f"{key} wants for each layer one of {', '.join(WORDS if key == PATTERN else KINDS)}")
    if "num_hidden_layers" in config and layer_count(config) != len(kinds):
        raise config.mistake(
            f"{key} names {counted(len(kinds), 'layer')}, num_hidden_layers {config['num_hidden_layers']}"
        )
    return kinds


def _mamba(config: Configuration) -> MambaSizes:
    """Of the limits of the time step, transformers takes `time_step_min` only, and not `time_step_limit`."""
    refuse_activation(config, "mamba_hidden_act")
    heads = config.integer("mamba_num_heads", 128)
    groups = config.integer("n_groups", config.integer("mamba_n_groups", 8))
    groups_key = "mamba_n_groups" if config.get("n_groups") is None else "n_groups"
    return MambaSizes(
        heads=heads,
        head_dim=config.integer("mamba_head_dim", 64),
        groups=shared_by(config, heads, groups, groups_key, "mamba_num_heads"),
        state_size=config.integer("ssm_state_size", 128),
        kernel=config.integer("conv_kernel", config.integer("mamba_d_conv", 4)),
        bias=config.flag("use_bias", False),
        convolution_bias=config.flag("use_conv_bias", config.flag("mamba_conv_bias", True)),
        limits=(config.number("time_step_min", 0.001), math.inf),
    )
