"""What drupe-quant-autoround brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Recipe, Request


@hookimpl
def drupe_passes() -> list[Ref]:
    return [
        Ref("round-by-gradient", "drupe_quant_autoround.round_by_gradient:RoundByGradient",
            "rounds weights by gradient descent on text (AutoRound); wants a GPU, and time"),
    ]  # fmt: skip


@hookimpl
def drupe_amend_recipe(recipe: Recipe, request: Request) -> Recipe | None:
    from drupe_quant_autoround.recipe import with_autoround

    return with_autoround(recipe)
