"""The entry module of drupe-feature-extraction: the task, its pass, claim and evaluator, and the command `embed`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Claim, ModelError, Ref, Step, hookimpl

if TYPE_CHECKING:
    from drupe.api import Model, Option, Request, Stage, Target

TASK = "feature-extraction"


@hookimpl
def drupe_tasks() -> list[Ref]:
    return [Ref(TASK, "drupe_feature_extraction.feature_extraction:FeatureExtraction", "gives embeddings of texts")]


@hookimpl
def drupe_passes() -> list[Ref]:
    return [
        Ref(
            "package-embedding",
            "drupe_feature_extraction.package_embedding:PackageEmbedding",
            "adds the output sentence_embedding: hidden states pooled as the model's folder says",
        )
    ]


@hookimpl
def drupe_evaluators() -> list[Ref]:
    return [
        Ref(
            "embeddings",
            "drupe_feature_extraction.embeddings:Embeddings",
            "cosine similarity of embeddings with the source's, and agreement on nearest texts",
        )
    ]


@hookimpl
def drupe_commands() -> list[Ref]:
    return [Ref("embed", "drupe_feature_extraction.embed:embed", "Give the embeddings of texts as JSON.")]


@hookimpl
def drupe_options() -> list[Option]:
    from drupe.api import Option
    from drupe_feature_extraction.choices import POOLINGS

    return [
        Option(
            "pooling",
            "How the hidden states of a text's tokens become its embedding.",
            choices=(*POOLINGS, "none"),
            group="Embeddings",
            default="as the model's folder says",
        ),
        Option(
            "min_cosine",
            "Smallest mean cosine similarity of embeddings with the source's; a smaller one is an error.",
            float,
            group="Embeddings",
            default="only broken models fail",
        ),
    ]


@hookimpl
def drupe_claim(stage: Stage, model: Model, target: Target, request: Request) -> Claim | None:
    """The claim of the stage `package`: models of the task."""
    if stage.name != "package" or model.kind != "onnx" or model.task != TASK:
        return None
    if len(model.parts) > 1:
        raise ModelError(f"package-embedding packages only models of one part; this one has {', '.join(model.parts)}")
    return Claim("embedding", (Step("package-embedding", options={"pooling": "pooling"}),))
