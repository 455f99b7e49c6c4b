"""The precisions at which a target's provider quantizes nothing: what a cure names where quantizing does not do."""

from __future__ import annotations

from drupe.api import Target, registry


def float_precisions(target: Target) -> str:
    """The option with those precisions, such as "--precision fp16 or fp32"; "" where the provider has none."""
    if target.provider not in registry().providers:
        return ""
    recipes = registry().provider(target.provider).recipes()
    names = dict.fromkeys(recipe.precision for recipe in recipes if not recipe.quantizes)
    return f"--precision {' or '.join(names)}" if names else ""
