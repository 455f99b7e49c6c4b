"""Recipes of every provider name passes that exist, and set keys that those have."""

from __future__ import annotations

import subprocess
import sys

import pytest

from drupe.api import Recipe, registry

RECIPES = [recipe for claim in registry().sound_providers() for recipe in claim.resolve()().recipes()]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_sets_only_keys_that_its_passes_have(recipe: Recipe) -> None:
    for step in recipe.steps:
        assert set(step.config) | set(step.options) <= set(registry().passes.make(step.name).Config.model_fields)


def test_recipes_are_known_without_what_computes() -> None:
    code = (
        "import sys; from drupe.api import registry;"
        "[claim.resolve()().recipes() for claim in registry().sound_providers()];"
        "print([name for name in ('numpy', 'onnx_ir', 'numba') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
