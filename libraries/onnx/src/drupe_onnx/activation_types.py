"""The types of activations that a target serves, and whose mistake it is where it does not serve one."""

from __future__ import annotations

from drupe.api import PluginError, Stage, Target, UsageError, registry
from drupe_onnx.operators import ACTIVATIONS, capabilities_of
from drupe_onnx.target_title import plugin_of, target_title


def served_activations(target: Target) -> tuple[str, ...]:
    """The types of ACTIVATIONS that the target's operator table lists, the best first. Raises PluginError for none."""
    listed = capabilities_of(target).activations
    if served := tuple(each for each in listed if each in ACTIVATIONS):
        return served
    plugin = plugin_of(target.provider)
    raise PluginError(
        f"the operator table of the provider {target_title(target)} lists {', '.join(listed) or 'nothing'} "
        f"as activations, and one of {', '.join(ACTIVATIONS)} is needed",
        cure=plugin.mending() if plugin else None,
    )


def refuse_unserved(activations: str, target: Target) -> None:
    """Raise an error for activations that the target's operator table does not list.

    PluginError, which names the provider's plugin, where a recipe of the provider asks for them; else UsageError.
    """
    served = served_activations(target)
    if activations in served:
        return
    plugin = plugin_of(target.provider)
    for recipe in _recipes_with(activations, target) if plugin else ():
        raise PluginError(
            f"the recipe '{recipe}' of the provider {target_title(target)} computes in {activations}, "
            f"and its operator table lists {', '.join(served)}",
            cure=plugin.mending() if plugin else None,
        )
    raise UsageError(
        f"the provider '{target.provider}' does not compute in {activations}",
        cure=f"set activations to {' or '.join(served)}",
    )


def _recipes_with(activations: str, target: Target) -> list[str]:
    """The provider's recipes that ask for these activations."""
    return [
        recipe.name
        for recipe in registry().provider(target.provider).recipes()
        for stage in recipe.stages
        if isinstance(stage, Stage) and stage.numerics.get("activations") == activations
    ]
