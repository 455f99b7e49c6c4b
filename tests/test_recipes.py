"""Recipes of every provider: their stages exist, and each gives a plan for a decoder's checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from drupe.api import STAGES, ExecutionProvider, Recipe, Request, Stage, registry, resolve

RECIPES = [(one, recipe) for _, one in registry().sound_providers() for recipe in one.recipes()]
each_recipe = pytest.mark.parametrize(("provider", "recipe"), RECIPES, ids=lambda each: getattr(each, "name", ""))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint(tmp_path_factory.mktemp("llama") / "source")


@each_recipe
def test_the_stages_of_a_recipe_exist_and_are_in_order(provider: ExecutionProvider, recipe: Recipe) -> None:
    places = [STAGES.index(each.name) for each in recipe.stages if isinstance(each, Stage)]
    assert places == sorted(set(places))


@each_recipe
def test_every_recipe_gives_a_plan_for_a_decoders_checkpoint(
    provider: ExecutionProvider, recipe: Recipe, checkpoint: Path
) -> None:
    request = Request(str(checkpoint), provider=provider.name, precision=recipe.precision)
    found = registry()
    plan = found.planner().compose(request, resolve(str(checkpoint), {}, found), provider, provider.target())
    names = [each.name for each in plan.passes]
    assert (names[0], names[-1]) == ("build-decoder", "tune-session")
    assert ("quantize-weights" in names) == recipe.quantizes
    assert plan.recipe == recipe.name


def test_listing_recipes_loads_no_library_that_computes() -> None:
    code = (
        "import sys; from drupe.api import registry;"
        "[one.recipes() for _, one in registry().sound_providers()];"
        "print([name for name in ('numpy', 'onnx_ir', 'numba') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
