"""Attention in both directions: decoders that give embeddings, in which each token reads later ones, too."""

from __future__ import annotations

from drupe.api import ModelError, replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.borrowed_attention import BorrowedAttention
from drupe_model_builder.parts.expert_attention import ExpertAttention
from drupe_model_builder.parts.latent_attention import LatentAttention
from drupe_model_builder.parts.shared_block import SharedBlock
from drupe_model_builder.parts.step import Layer, Part

KEY = "is_causal"
"""With false, transformers lets the attention of every family read later tokens. Recurrences stay as they are."""


def directed(config: Configuration, decoder: Decoder) -> Decoder:
    """The decoder as `is_causal` says. With null, transformers reads later tokens in padded batches only."""
    if KEY in config and config[KEY] is None:
        raise config.mistake(f"{KEY} wants true or false, not null")
    return decoder if config.flag(KEY, True) else both_ways(decoder)


def both_ways(decoder: Decoder) -> Decoder:
    """The decoder whose attention reads later tokens, too.

    A window of W is then one of W tokens before and W behind the current one, as in transformers. Parts that read later
    tokens already are those of a family with a key of its own.
    """
    return replace(decoder, layers=tuple(map(_of_layer, decoder.layers)))


def _of_layer(layer: Layer) -> Layer:
    steps = []
    for step in layer.steps:
        branches = tuple(replace(branch, part=_of_part(branch.part)) for branch in step.branches)
        steps.append(replace(step, branches=branches, aside=step.aside and _of_block(step.aside)))
    return replace(layer, steps=tuple(steps))


def _of_block(block: SharedBlock) -> SharedBlock:
    return replace(block, attention=replace(block.attention, both_ways=True))


def _of_part(part: Part) -> Part:
    if isinstance(part, LatentAttention | ExpertAttention):
        return replace(part, both_ways=True)
    if isinstance(part, Attention) and part.only_earlier:
        return part
    if isinstance(part, Attention | BorrowedAttention) and not part.both_ways:
        return replace(part, both_ways=True, window=None if part.window is None else part.window + 1)
    return part


def refuse_generation(config: Configuration, decoder: Decoder) -> None:
    """Raise ModelError for a decoder that is to generate text although its tokens read later ones."""
    if decoder.both_ways:
        raise ModelError(
            f"each token of this {decoder.model_type} model reads later ones, so it cannot write one after another",
            where=config.path,
            cure="if it gives embeddings, add the files of sentence-transformers (modules.json, 1_Pooling), or name a "
            'class without a head as "architectures", such as Qwen2Model',
        )
