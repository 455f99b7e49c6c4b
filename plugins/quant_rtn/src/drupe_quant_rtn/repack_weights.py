"""The pass `repack-weights`."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field

from drupe.api import Context, Form, Model, Pass, PassConfig
from drupe_nbits import ExpertSite, Rewriter, find_experts, find_sites
from drupe_onnx import Capabilities, OnnxPackage, capabilities_of, ir, remove_unused
from drupe_quant_rtn.prequantized_experts import take_over_experts
from drupe_quant_rtn.prequantized_weights import is_quantized_already, take_over

QUANTIZED_AGAIN = "drupe.quantized_again"
"""The key of a model's metadata that lists, as JSON, the matrices that are quantized in the checkpoint and cannot be
taken over: the next pass quantizes them again."""


class RepackWeightsConfig(PassConfig):
    """The settings of `repack-weights`."""

    block_size: Literal[16, 32, 64, 128, 256] | None = Field(None, description="another block size is an error")
    accuracy_level: int | None = Field(
        None, ge=0, le=4, description="accuracy_level of MatMulNBits; by default the target's"
    )


class RepackWeights(Pass):
    """Takes over matrices that are already quantized in the checkpoint, so no later pass quantizes them again."""

    name = "repack-weights"
    summary = "takes over weights that are already quantized in the checkpoint"
    revision = 3
    Config = RepackWeightsConfig
    requires = Form("onnx", {"weights": ("float", "mixed")})
    ensures = Form("onnx")
    libraries = ("drupe-packed",)

    def run(self, model: Model, config: RepackWeightsConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        taken = repack_graph(package.component, config, capabilities_of(context.target))
        return model.but(facts={"weights": "mixed"}) if taken else model


def repack_graph(model: ir.Model, config: RepackWeightsConfig, capabilities: Capabilities) -> int:
    """Repack every packed site whose scheme the target supports, also experts; list the others in the model's metadata.

    Returns how many were repacked.
    """
    rewriter = Rewriter(model.graph, capabilities, config.accuracy_level)
    packed = [site for site in find_sites(model.graph) if is_quantized_already(site.rows)]
    again = [site.name for site in packed if not take_over(site, rewriter, config.block_size, capabilities)]
    experts = [site for site in find_experts(model.graph) if _holds_levels(site)]
    again += [
        site.name for site in experts if not take_over_experts(model.graph, site, config.block_size, capabilities)
    ]
    remove_unused(model)
    if again:
        model.metadata_props[QUANTIZED_AGAIN] = json.dumps(again)
    return len(packed) + len(experts) - len(again)


def _holds_levels(site: ExpertSite) -> bool:
    return any(is_quantized_already(each.rows) for each in site.weights)
