"""DBRX: LayerNorms without biases, limits on query, key and value, experts whose matrices lie one below the other."""

from __future__ import annotations

from drupe.api import ModelError
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.experts import MOST_EXPERTS, ExpertSizes
from drupe_model_builder.configuration.reading import (
    MOST_HEADS,
    MOST_LAYERS,
    head_size,
    not_built,
    rotary_of,
    shared_by,
)
from drupe_model_builder.parts.experts import Experts, Matrices
from drupe_model_builder.parts.router import Router
from drupe_model_builder.parts.rows import Rows, one_after_another
from drupe_model_builder.parts.step import Layer, pre

NAMES = Names(embedding="transformer.wte", layer="transformer.blocks.{}", attention="norm_attn_norm.attn",
              output="out_proj", mlp="ffn", final_norm="transformer.norm_f")  # fmt: skip
NORMS = {"kind": "layer"}
IN_THE_GRAPH = tuple(f"norm_attn_norm.attn.{each}_proj" for each in "qkv")


def dbrx(config: Configuration) -> Decoder:
    attention = config.part("attn_config")
    sizes, many, normalise = _sizes(config, attention), _experts(config), _normalises(config)
    rotary = rotary_of(config, sizes, theta=attention.number("rope_theta", 10_000.0, above=0))
    clip = attention.number("clip_qkv", above=0) if attention.get("clip_qkv") is not None else None
    rows = one_after_another([sizes.query, sizes.key, sizes.key])

    def layer(block: Block) -> Layer:
        projections = block.split(f"{NAMES.attention}.Wqkv", sizes.hidden, rows, IN_THE_GRAPH, clip=clip)
        router = Router(block.linear("ffn.router.layer", many.count, sizes.hidden), many.chosen, normalise=normalise)
        return block.layer(
            pre(block.norm("norm_attn_norm.norm_1"), block.attention(rotary, projections=projections)),
            pre(block.norm("norm_attn_norm.norm_2"), _of_layer(block, many, router)),
        )

    return decoder(config, sizes, layer, names=NAMES, norms=NORMS)


def _of_layer(block: Block, many: ExpertSizes, router: Router) -> Experts:
    """The experts of a layer. The matrices `w2` are stored as [in, out]."""

    def matrices(name: str, *, transposed: bool = False) -> Matrices:
        tensor, shape = f"{block.name}.ffn.experts.mlp.{name}", (many.count * many.width, block.sizes.hidden)
        numbers = range(many.count)
        return Matrices(
            tuple(Rows(tensor, shape, transposed=transposed, index=at, height=many.width) for at in numbers)
        )

    name = f"{block.name}.ffn.experts"
    return Experts(name, router, matrices("w1"), matrices("v1"), matrices("w2", transposed=True))


def _experts(config: Configuration) -> ExpertSizes:
    settings = config.part("ffn_config")
    activation = settings.part("ffn_act_fn").text("name", "silu")
    if activation != "silu":
        cure = "correct it if it is misspelt; otherwise choose another model"
        raise not_built(config, "ffn_config.ffn_act_fn", activation, "asks for another activation than silu", cure)
    found = ExpertSizes(
        settings.integer("moe_num_experts", 4, most=MOST_EXPERTS),
        settings.integer("moe_top_k", 1, most=MOST_EXPERTS),
        settings.integer("ffn_hidden_size", 3584),
    )
    if found.chosen > found.count:
        raise config.mistake(f"ffn_config.moe_top_k = {found.chosen} is more than moe_num_experts = {found.count}")
    return found


def _normalises(config: Configuration) -> bool:
    """Whether the weights of the chosen experts are divided by their sum: the norm 1 of them. Null leaves them."""
    settings, key = config.part("ffn_config"), "moe_normalize_expert_weights"
    if key in settings and settings[key] is None:
        return False
    power = settings.number(key, 1.0)
    if power != 1.0:
        cure = "choose another model"
        raise not_built(config, f"ffn_config.{key}", power, "divides experts' weights by another norm than 1", cure)
    return True


def _sizes(config: Configuration, attention: Configuration) -> Sizes:
    hidden, heads = config.integer("d_model", 2048), config.integer("n_heads", 16, most=MOST_HEADS)
    groups = attention.integer("kv_n_heads", 1, most=MOST_HEADS)
    if config.flag("tie_word_embeddings", False):
        raise ModelError(
            f"tie_word_embeddings = true in {config.path.name}: DBRX has a head of its own",
            where=config.path,
            cure="remove the key",
        )
    return Sizes(
        vocab_size=config.integer("vocab_size", 32000),
        hidden=hidden,
        intermediate=hidden,
        heads=heads,
        kv_heads=shared_by(config, heads, groups, "attn_config.kv_n_heads", "n_heads"),
        head_dim=head_size(config, hidden, heads, "d_model", "n_heads"),
        layers=config.integer("n_layers", 24, most=MOST_LAYERS),
        context_length=config.integer("max_seq_len", 2048),
        epsilon=1e-5,
    )
