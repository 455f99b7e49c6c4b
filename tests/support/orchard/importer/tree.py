"""The kind `tree`, and the pass that makes an ONNX graph from a model of this kind."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from drupe.api import Form, ModelKind, Pass, PassConfig


class TreeKind(ModelKind):
    """A folder with tree.json: {"layers": [matrix, ...]}."""

    name = "tree"

    def load(self, model):
        return model.but(payload=json.loads((model.location / "tree.json").read_text()))

    def save(self, model, folder, context):
        (folder / "tree.json").write_text(json.dumps(model.payload))
        return {}

    def fingerprint(self, model, thorough=True):
        return hashlib.sha256((model.location / "tree.json").read_bytes()).hexdigest()


class PlantTreeConfig(PassConfig):
    """The activation between the layers."""

    bark: Literal["relu", "tanh"] = "relu"


class PlantTree(Pass):
    """Makes a graph with a matrix product and an activation for each layer."""

    name = "plant-tree"
    summary = "makes an ONNX graph of a tree"
    Config = PlantTreeConfig
    requires = Form("tree")
    ensures = Form("onnx", {"weights": "float", "packaged": "no"})

    def run(self, model, config, context):
        import numpy as np

        from drupe_onnx import Array, OnnxPackage, Tape, initializer, ir

        floats = ir.DataType.FLOAT
        tape = Tape()
        matrices = [np.asarray(layer, np.float32) for layer in model.payload["layers"]]
        value = apples = ir.val("apples", floats, ir.Shape(["batch", matrices[0].shape[0]]))
        weights = []
        for number, matrix in enumerate(matrices):
            weights.append(initializer(f"layer.{number}.weight", Array(matrix)))
            shape = ("batch", matrix.shape[1])
            value = tape.node("MatMul", [value, weights[-1]], f"/layer.{number}/MatMul", floats, shape)
            operator = {"relu": "Relu", "tanh": "Tanh"}[config.bark]
            value = tape.node(operator, [value], f"/layer.{number}/{operator}", floats, shape)
        value.name = "grades"
        graph = ir.Graph([apples], [value], nodes=tape.nodes, initializers=weights, opset_imports={"": 21}, name="tree")
        return model.but(kind="onnx", payload=OnnxPackage({"model": ir.Model(graph, ir_version=10)}))
