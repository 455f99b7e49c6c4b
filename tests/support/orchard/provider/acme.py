"""The provider `acme-npu`, its runtime and its own pass."""

from __future__ import annotations

from pathlib import Path

from drupe.api import Device, Form, Pass, PassConfig, Recipe, Runtime, RuntimePackage, Session, Stage, Step
from drupe_onnx import TableProvider


class Acme(TableProvider):
    """A card that multiplies with 4-bit weights."""

    name = "acme-npu"
    summary = "Acme's card, as it is simulated"
    runtime_name = "AcmeExecutionProvider"
    versioned_by = ("onnxruntime",)
    packages = (RuntimePackage("acme-simulator", "pip install orchard"),)
    tables = (Path(__file__).with_name("operators.json"),)

    def recipes(self):
        label = Step("label-graph", options={"text": "label"})
        stages = (Stage("import"), Stage("prepare"), Stage("quantize", {"bits": 4, "symmetric": True}), label)
        return [Recipe("acme-int4", "int4", stages)]

    def devices(self):
        return [Device("Acme One", "npu")]


class LabelGraphConfig(PassConfig):
    """The text for the graph's description."""

    text: str = "for acme-npu"


class LabelGraph(Pass):
    """Writes a text into the graph's description."""

    name = "label-graph"
    summary = "writes on a graph who it is for"
    Config = LabelGraphConfig
    requires = ensures = Form("onnx")

    def run(self, model, config, context):
        model.payload.component.doc_string = config.text
        return model


class Simulator(Runtime):
    """Simulates the card: it runs graphs on the processor."""

    name = "acme-simulator"
    distributions = ("onnxruntime", "onnxruntime-gpu")

    def refusal(self, model, target):
        return None if model.kind == "onnx" else f"it runs graphs, not models of kind '{model.kind}'"

    def open(self, model, target, *, max_length=None, threads=0):
        return SimulatorSession(model.location / "model.onnx")


class SimulatorSession(Session):
    """An open graph."""

    def __init__(self, path):
        import onnxruntime

        self.graph = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(self, inputs, outputs=None, part="model"):
        names = [each.name for each in self.graph.get_outputs()]
        return dict(zip(names, self.graph.run(names, dict(inputs)), strict=True))

    def close(self):
        del self.graph
