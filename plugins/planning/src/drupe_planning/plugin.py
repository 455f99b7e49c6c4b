"""The entry module of drupe-planning: the planner `by-recipe`."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_planners() -> list[Ref]:
    return [Ref("by-recipe", "drupe_planning.planner:ByRecipe", "fills the stages of the provider's recipe")]
