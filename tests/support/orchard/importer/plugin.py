"""The importer brings a kind of model, resolves references to it, and has a pass that makes a graph, and a flag."""

from __future__ import annotations

from drupe.api import NATIVE, Claim, Option, Ref, Step, hookimpl


@hookimpl
def drupe_model_kinds():
    return [Ref("tree", "orchard.importer.tree:TreeKind", "layers as lists of numbers")]


@hookimpl
def drupe_passes():
    return [Ref("plant-tree", "orchard.importer.tree:PlantTree", "makes an ONNX graph of a tree")]


@hookimpl
def drupe_options():
    return [Option("bark", "What stands between the layers.", choices=("relu", "tanh"), group="Orchard")]


@hookimpl
def drupe_resolve_model(reference, options):
    from pathlib import Path

    from drupe.api import Model

    folder = Path(reference)
    return Model.single("tree", folder, {}, task="grading") if (folder / "tree.json").is_file() else None


@hookimpl
def drupe_claim(stage, model, target, request):
    if stage.name != "import" or model.kind != "tree":
        return None
    return Claim("tree", (Step("plant-tree", options={"bark": "bark"}),), NATIVE)
