"""`--quality autoround`, in the recipe of any provider that quantizes to the bits that rounding by gradient is for."""

from __future__ import annotations

from dataclasses import replace

from drupe.api import Recipe, Step

QUALITY = "autoround"
_QUANTIZE = "quantize-weights"
_BITS = 4
_KEPT = ("symmetric",)
"""Of the recipe's configuration, what the rounding has to know."""
_OPTIONS = (
    "block_size",
    "symmetric",
    *(f"calibration_{name}" for name in ("data", "sequences", "length", "seed")),
)


def with_autoround(recipe: Recipe) -> Recipe | None:
    """The recipe with rounding before all else, whose levels it then takes over; None for one without 4-bit weights."""
    quantize = next((step for step in recipe.steps if step.name == _QUANTIZE), None)
    if quantize is None or quantize.config.get("bits", _BITS) != _BITS or "quality" not in quantize.when:
        return None
    taken = {"quality": (QUALITY,)}
    kept = {key: quantize.config[key] for key in _KEPT if key in quantize.config}
    rounding = Step("round-by-gradient", kept, {option: option for option in _OPTIONS}, taken)
    options = {key: option for key, option in quantize.options.items() if option != "quality"}
    behind = replace(quantize, options=options, when=taken)
    at = recipe.steps.index(quantize)
    return replace(recipe, steps=(rounding, *recipe.steps[:at], behind, *recipe.steps[at:]))
