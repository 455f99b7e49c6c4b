"""The entry module of drupe-model-builder: the pass `build-decoder`, and its claim for supported architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Claim, Model, Option, Request, Stage, Target


@hookimpl
def drupe_passes() -> list[Ref]:
    return [
        Ref(
            "build-decoder",
            "drupe_model_builder.build_decoder:BuildDecoder",
            "turns a decoder's checkpoint into an ONNX graph with lazy weights",
        )
    ]


@hookimpl
def drupe_options() -> list[Option]:
    from drupe.api import Option

    return [Option("all_logits", "Logits of every token, not only of the last one.", type=bool, group="Graph")]


@hookimpl
def drupe_claim(stage: Stage, model: Model, target: Target, request: Request) -> Claim | None:
    from drupe_model_builder.claims import claim

    return claim(stage, model)
