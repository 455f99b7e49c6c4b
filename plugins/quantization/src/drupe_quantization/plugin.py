"""The entry module of drupe-quantization: the options of quantization, and claims of the stages that use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import hookimpl

if TYPE_CHECKING:
    from drupe.api import Claim, Model, Option, Request, Stage, Target


@hookimpl
def drupe_options() -> list[Option]:
    from drupe_quantization.options import OPTIONS

    return OPTIONS


@hookimpl
def drupe_claim(stage: Stage, model: Model, target: Target, request: Request) -> Claim | None:
    from drupe_quantization.ladder import claim

    return claim(stage, model, request)
