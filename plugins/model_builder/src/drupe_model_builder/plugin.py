"""The entry module of drupe-model-builder: the pass `build-decoder`, its claim, and the hook for families."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Ref, hookimpl, hookspec

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


@hookspec
def drupe_decoder_families() -> list[Ref]:  # type: ignore[empty-body]
    """Families of decoders, each called by its `model_type`.

    Each target is a function from config.json (drupe_checkpoints.Configuration) to a composition of parts
    (drupe_model_builder.composition.Decoder).
    """


@hookimpl(specname="drupe_decoder_families")
def own_decoder_families() -> list[Ref]:
    from drupe_model_builder.finding import own_families, summary_of

    target = "drupe_model_builder.families.{0}:{0}"
    return [Ref(name, target.format(name.replace("-", "_")), summary_of(name)) for name in own_families()]


@hookimpl
def drupe_options() -> list[Option]:
    from drupe.api import Option

    return [Option("all_logits", "Logits of every token, not only of the last one.", type=bool, group="Graph")]


@hookimpl
def drupe_claim(stage: Stage, model: Model, target: Target, request: Request) -> Claim | None:
    from drupe_model_builder.claims import claim

    return claim(stage, model)
