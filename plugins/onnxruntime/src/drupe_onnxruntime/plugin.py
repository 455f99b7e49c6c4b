"""The entry module of drupe-onnxruntime: two runtimes, the pass `package-genai`, and its claim."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Claim, ModelError, Ref, Step, hookimpl

if TYPE_CHECKING:
    from drupe.api import Model, Request, Stage, Target


@hookimpl
def drupe_runtimes() -> list[Ref]:
    return [
        Ref(
            "onnxruntime-genai",
            "drupe_onnxruntime.genai.runtime:OnnxRuntimeGenai",
            "generates text from packages with a genai_config.json",
        ),
        Ref(
            "onnxruntime",
            "drupe_onnxruntime.plain.runtime:OnnxRuntime",
            "runs any ONNX model, and generates text with decoders in a Python loop",
        ),
    ]


@hookimpl
def drupe_passes() -> list[Ref]:
    return [
        Ref(
            "package-genai",
            "drupe_onnxruntime.genai.package_genai:PackageGenai",
            "adds what onnxruntime-genai needs to run a decoder: genai_config.json and a tokenizer it reads",
        )
    ]


@hookimpl
def drupe_claim(stage: Stage, model: Model, target: Target, request: Request) -> Claim | None:
    """The claim of the stage `package`: decoders become packages for onnxruntime-genai."""
    if stage.name != "package" or model.kind != "onnx" or model.task != "text-generation":
        return None
    if len(model.parts) > 1:
        raise ModelError(f"package-genai packages only models of one part; this one has {', '.join(model.parts)}")
    unchecked = {} if request.verify else {"compare_tokens": False}
    return Claim("genai", (Step("package-genai", unchecked),))
