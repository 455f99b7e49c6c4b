"""The pass `repack-weights`."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field

from drupe.api import Capabilities, Context, Model, Pass, PassConfig, Shape
from drupe_nbits import Rewriter, find_sites, remove_unused
from drupe_onnx import OnnxPackage, ir
from drupe_quant_rtn.taking_over import is_quantized_already, take_over

QUANTIZED_AGAIN = "drupe.quantized_again"
"""The key of a model's metadata that lists, as JSON, the matrices that the checkpoint holds quantized and that cannot
stay so: what quantizes next gives them other levels."""


class RepackWeightsConfig(PassConfig):
    """What `repack-weights` can be told."""

    block_size: Literal[16, 32, 64, 128, 256] | None = Field(None, description="refuse another one")
    accuracy_level: int | None = Field(None, ge=0, le=4, description="of MatMulNBits; by default the target's")


class RepackWeights(Pass):
    """Takes over what the checkpoint holds quantized, level by level, so that no pass behind it quantizes it again."""

    name = "repack-weights"
    summary = "takes over weights that the checkpoint holds quantized already"
    revision = 2
    Config = RepackWeightsConfig
    requires = Shape("onnx", {"weights": "float"})
    ensures = Shape("onnx", {"weights": "float"})
    libraries = ("drupe-packed",)

    def run(self, model: Model, config: RepackWeightsConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        for component in package.components.values():
            repack_graph(component, config, context.target.capabilities)
        return model


def repack_graph(model: ir.Model, config: RepackWeightsConfig, capabilities: Capabilities) -> None:
    """Repack every packed site of a model that the target serves so, and list the others in its metadata."""
    rewriter = Rewriter(model.graph, capabilities, config.accuracy_level)
    again = [
        site.name
        for site in find_sites(model.graph)
        if is_quantized_already(site.rows) and not take_over(site, rewriter, config.block_size, capabilities)
    ]
    remove_unused(model.graph)
    if again:
        model.metadata_props[QUANTIZED_AGAIN] = json.dumps(again)
