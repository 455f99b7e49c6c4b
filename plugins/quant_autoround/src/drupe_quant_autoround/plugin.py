"""The entry module of drupe-quant-autoround: the pass `round-by-gradient`, and `--quality autoround`, which uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Claim, Fact, Model, Option, Request, Stage, Target


@hookimpl
def drupe_passes() -> list[Ref]:
    return [
        Ref("round-by-gradient", "drupe_quant_autoround.round_by_gradient:RoundByGradient",
            "rounds weights by gradient descent on a text (AutoRound); slow without a GPU"),
    ]  # fmt: skip


@hookimpl
def drupe_facts() -> list[Fact]:
    from drupe.api import Fact

    return [Fact("rounded", ("no", "by gradient"), "how the checkpoint's weights were rounded to levels", "no")]


@hookimpl
def drupe_options() -> list[Option]:
    from drupe.api import Option

    help = "autoround (gradient descent on a text; slow without a GPU)."
    return [Option("quality", help, choices=("autoround",), extends=True)]


@hookimpl
def drupe_claim(stage: Stage, model: Model, target: Target, request: Request) -> Claim | None:
    from drupe_quant_autoround.claims import claim

    return claim(stage, model, request)
