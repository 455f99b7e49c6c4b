"""The context of a model: `max_position_embeddings`, or what scaled rotary positions make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from drupe_checkpoints.configuration import Configuration


def context_of(config: Configuration, default: int | None = None) -> int:
    """How many tokens a model reads. default: of its architecture, for a config.json that leaves the number out.

    A scaling that stretches positions extends the context, as in vLLM: model cards say to add it, and leave
    `max_position_embeddings` as it was. Raises ModelError for numbers that are not whole or positive.
    """
    stated = config.integer("max_position_embeddings", default)
    if config.get("model_type") in STATED_ONLY or _differs_by_type(config):
        return stated
    rope = config.rope()
    extended = EXTENDED.get(rope.text("rope_type"), _unchanged)
    return max(1, extended(rope, stated))


def _differs_by_type(config: Configuration) -> bool:
    """Whether rotary parameters are nested by the type of layer: they extend no context then."""
    found = config.section("rope_parameters")
    return found is not None and any(isinstance(value, dict) for value in found.values())


def _unchanged(rope: Configuration, stated: int) -> int:
    return stated


def _stretched(rope: Configuration, stated: int) -> int:
    return int(stated * rope.number("factor", above=0))


def _yarn(rope: Configuration, stated: int) -> int:
    """Without a factor, transformers takes the quotient of both lengths, so the context is the stated one."""
    trained = rope.integer("original_max_position_embeddings", stated)
    return max(stated, int(trained * rope.number("factor", stated / trained, above=0)))


def _longrope(rope: Configuration, stated: int) -> int:
    trained = rope.integer("original_max_position_embeddings", stated)
    return max(stated, int(trained * rope.number("factor", 1.0, above=0)))


EXTENDED: Mapping[str, Callable[[Configuration, int], int]] = {
    "dynamic": _stretched,
    "linear": _stretched,
    "longrope": _longrope,
    "yarn": _yarn,
}
"""By type: the context, from the rotary parameters and the stated length."""

STATED_ONLY = frozenset({"gemma3_text"})
"""Families whose `max_position_embeddings` counts the stretched positions already."""
