"""The planner `by-recipe`."""

from __future__ import annotations

from drupe.api import ExecutionProvider, Model, Plan, Planner, Request, Target, registry
from drupe_planning.composing import compose


class ByRecipe(Planner):
    """Fills the stages of the provider's recipe with claims, or uses the passes that the user named."""

    name = "by-recipe"

    def compose(self, request: Request, source: Model, provider: ExecutionProvider, target: Target) -> Plan:
        return compose(request, source, provider, target, registry())
