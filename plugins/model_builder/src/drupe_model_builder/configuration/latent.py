"""What families with latent attention read from config.json, and the attention that it makes."""

from __future__ import annotations

import math
from typing import Any

from drupe.api import Record, replace
from drupe_checkpoints import Configuration
from drupe_model_builder.configuration.block import Block, Sizes
from drupe_model_builder.configuration.reading import not_built, rotary_of, sizes_of
from drupe_model_builder.parts.latent_attention import LatentAttention
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rotary import Rotary
from drupe_model_builder.parts.rows import by_head

EPSILON = 1e-6
"""Of the norms of latents, whatever `rms_norm_eps` says."""


class LatentSizes(Record):
    """query_rank: elements of the query's latent; None where the query is made from the input. rank: of the latent of
    keys and values. plain, rotated: elements of each head's key without a position, and with one. value: of its value.
    """

    query_rank: int | None
    rank: int
    plain: int
    rotated: int
    value: int

    @property
    def key(self) -> int:
        """Elements of a head's query and key."""
        return self.plain + self.rotated


def sizes_with_latents(config: Configuration, usual: LatentSizes, **defaults: Any) -> tuple[Sizes, LatentSizes]:
    """The sizes, with the rotated part as the size of a head, as transformers has it, and those of latent attention.

    usual: the family's, for keys that config.json leaves out. defaults: of the other sizes, as in `sizes_of`.
    """
    sizes = sizes_of(config, **defaults)
    if sizes.kv_heads != sizes.heads:
        raise config.mistake(
            f"num_key_value_heads = {sizes.kv_heads}, but latent attention makes keys and values of each of "
            f"num_attention_heads = {sizes.heads} heads"
        )
    without = "q_lora_rank" in config and config["q_lora_rank"] is None
    latent = LatentSizes(
        None if without or (usual.query_rank is None and "q_lora_rank" not in config)
        else config.integer("q_lora_rank", usual.query_rank),
        config.integer("kv_lora_rank", usual.rank),
        config.integer("qk_nope_head_dim", usual.plain),
        config.integer("qk_rope_head_dim", usual.rotated),
        config.integer("v_head_dim", usual.value),
    )  # fmt: skip
    if config.integer("qk_head_dim", latent.key) != latent.key:
        raise config.mistake(
            f"qk_head_dim = {config['qk_head_dim']} is not qk_nope_head_dim = {latent.plain} and qk_rope_head_dim = "
            f"{latent.rotated} together"
        )
    return replace(sizes, head_dim=latent.rotated), latent


def latent_rotary(config: Configuration, sizes: Sizes) -> Rotary:
    """The rotary embedding of the rotated part, of neighbours unless `rope_interleave` is false."""
    return rotary_of(config, sizes, interleaved=config.flag("rope_interleave", True))


def latent_scale(config: Configuration, latent: LatentSizes) -> float:
    """The factor on query times key. A rotary embedding that is stretched may raise it (`mscale_all_dim`)."""
    rope, scale = config.rope(), 1.0 / math.sqrt(latent.key)
    raised = rope.number("mscale_all_dim", 0.0)
    if rope.text("rope_type") == "default" or not raised:
        return scale
    factor = rope.number("factor", above=0)
    more = 1.0 if factor <= 1 else 0.1 * raised * math.log(factor) + 1.0
    return scale * more * more


def latent_attention_of(
    block: Block,
    latent: LatentSizes,
    rotary: Rotary | None,
    scale: float,
    *,
    bias: bool = False,
    **differences: Any,
) -> LatentAttention:
    """Latent attention. bias: of the products that read the input, and of the output.

    differences: other fields of `LatentAttention`.
    """
    hidden, heads, at = block.sizes.hidden, block.sizes.heads, block.names.attention
    rank = latent.query_rank
    name, columns = ("q_proj", hidden) if rank is None else ("q_b_proj", rank)
    query = block.linear(f"{at}.{name}", heads * latent.key, columns)
    query = replace(query, rows=query.rows.of(_rotated_first(latent, heads)))
    if rank is not None:
        differences["query_latent"] = block.linear(f"{at}.q_a_proj", rank, hidden, bias)
        differences["query_norm"] = _norm(block, f"{at}.q_a_layernorm", rank)
    return LatentAttention(
        f"{block.name}.{at}",
        block.number,
        query,
        block.linear(f"{at}.kv_a_proj_with_mqa", latent.rank + latent.rotated, hidden, bias),
        _norm(block, f"{at}.kv_a_layernorm", latent.rank),
        block.linear(f"{at}.kv_b_proj", heads * (latent.plain + latent.value), latent.rank),
        block.linear(f"{at}.{block.names.output}", hidden, heads * latent.value, bias),
        heads,
        latent.rotated,
        latent.plain,
        latent.value,
        scale,
        rotary,
        **differences,
    )


def refuse_other_words(config: Configuration, key: str, known: str) -> None:
    """Raise ModelError where a key names another way of choosing experts than the only one that the family has."""
    found = config.text(key, known)
    if found != known:
        cure = f"correct {key} if it is misspelt; otherwise choose another model"
        raise not_built(config, key, found, f"asks for another choice of experts than {known}", cure)


def _norm(block: Block, name: str, size: int) -> Norm:
    return block.norm(name, size, epsilon=EPSILON)


def _rotated_first(latent: LatentSizes, heads: int) -> tuple[range, ...]:
    """The rows of each head's query, with the rotated ones first: the operator rotates the first elements of a head."""
    plain, rotated = by_head([latent.plain, latent.rotated], heads)
    return tuple(each for pair in zip(rotated, plain, strict=True) for each in pair)
