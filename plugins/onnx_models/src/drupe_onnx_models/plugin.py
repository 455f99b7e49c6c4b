"""The entry module of drupe-onnx-models: the kind `onnx`, finding models of this kind, and importing them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Claim, Fact, Model, Request, Stage, Target

NUMERICS = ("weights", "activations")


@hookimpl
def drupe_model_kinds() -> list[Ref]:
    return [Ref("onnx", "drupe_onnx.kind:OnnxKind", "ONNX graphs with lazy weights, and the files beside them")]


@hookimpl
def drupe_facts() -> list[Fact]:
    from drupe.api import Fact

    return [
        Fact("weights", ("float", "mixed", "quantized"), "which matrices are quantized: none, some, all that can be"),
        Fact("channels", ("not weighed", "weighed"), "whether it is known how much each channel counts", "not weighed"),
        Fact("logits", ("last", "all"), "the tokens for which a decoder gives logits"),
        Fact("packaged", ("no", "yes"), "whether all files that a runtime needs lie beside the graph", "no"),
    ]


@hookimpl
def drupe_tasks() -> list[Ref]:
    return [Ref("graph", "drupe_onnx_models.graph_task:GraphTask", "any ONNX graph: tried on random inputs")]


@hookimpl
def drupe_evaluators() -> list[Ref]:
    return [
        Ref("outputs", "drupe_onnx_models.outputs:Outputs", "how close a graph's outputs are to those of its source")
    ]


@hookimpl
def drupe_passes() -> list[Ref]:
    return [
        Ref(
            "adopt-graph",
            "drupe_onnx_models.adopt_graph:AdoptGraph",
            "turns an ONNX graph from any exporter into one that can be quantized and packaged",
        ),
        Ref(
            "extract-adapters",
            "drupe_onnx_models.extract_adapters:ExtractAdapters",
            "takes LoRA out of an ONNX graph: optional inputs, and a file with their values",
        ),
    ]


@hookimpl
def drupe_commands() -> list[Ref]:
    summary = "Take LoRA out of an ONNX model, as a base model and an adapter."
    return [Ref("extract-adapters", "drupe_onnx_models.extracting:extract_adapters", summary)]


@hookimpl
def drupe_resolve_model(reference: str, options: Mapping[str, Any]) -> Model | None:
    """The model in an .onnx file or a folder with one. Raises ModelError for a broken graph or an ambiguous folder."""
    from drupe_onnx_models.resolving import resolve

    return resolve(reference, options)


@hookimpl
def drupe_claim(stage: Stage, model: Model, target: Target, request: Request) -> Claim | None:
    """The claim of the stage `import` for a model that is an ONNX graph."""
    from drupe.api import NATIVE, Claim, Step

    if stage.name != "import" or model.kind != "onnx":
        return None
    config = {name: value for name, value in stage.numerics.items() if name in NUMERICS}
    return Claim("onnx", (Step("adopt-graph", config),), NATIVE)
