"""Where a target does not quantize: the error of one that supports no quantized matrix, and the float precisions."""

from __future__ import annotations

from drupe.api import Target, Unfit, registry
from drupe_nbits.sites import Site
from drupe_onnx import target_title


def float_precisions(target: Target) -> str:
    """The option with the precisions at which the target's provider quantizes nothing: "--precision fp16 or fp32".

    "" where the provider has none.
    """
    if target.provider not in registry().providers:
        return ""
    recipes = registry().provider(target.provider).recipes()
    names = dict.fromkeys(recipe.precision for recipe in recipes if not recipe.quantizes)
    return f"--precision {' or '.join(names)}" if names else ""


def nothing_quantized(site: Site, why: str, target: Target) -> Unfit:
    """The error of a target that supports no quantized matrix. why: it does not support that of `site`."""
    return Unfit(
        f"{target_title(target)} supports no quantized matrix of the model; '{site.weight.name}': {why}",
        cure=float_precisions(target) or "make the package for another --provider",
    )
