"""The pass `quantize-weights`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from drupe.api import Context, Model, ModelError, Pass, Shape, Target
from drupe_nbits import ACCURACY_LEVEL, Rewriter, Site, find_sites, is_quantized, remove_unused
from drupe_onnx import OnnxPackage, ir
from drupe_onnx.package import FLOAT_MATRICES
from drupe_quant_rtn.choosing import reason, refuse_settings, scheme_for
from drupe_quant_rtn.configuration import QuantizeWeightsConfig


class QuantizeWeights(Pass):
    """Puts quantized weights in the place of float ones. It only rewrites the graph; the writer computes."""

    name = "quantize-weights"
    summary = "quantizes weights in blocks to 2, 4 or 8 bits, without data"
    revision = 3
    Config = QuantizeWeightsConfig
    requires = Shape("onnx", {"weights": "float"})
    ensures = Shape("onnx", {"weights": "quantized"})
    libraries = ("drupe-blockquant",)

    def run(self, model: Model, config: QuantizeWeightsConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        outcomes = [quantize_graph(each, config, context.target) for each in package.components.values()]
        if not any(is_quantized(each.graph) for each in package.components.values()):
            kept = [site for outcome in outcomes for site in outcome.kept]
            raise ModelError(
                _nothing_quantized(kept, config, context.target),
                where=model.location,
                cure="choose a floating-point --precision for it",
            )
        return model


@dataclass
class Outcome:
    """What became of a graph's sites: how many were quantized, which stay in floating point."""

    quantized: int = 0
    kept: list[Site] = field(default_factory=list)


def quantize_graph(model: ir.Model, config: QuantizeWeightsConfig, target: Target) -> Outcome:
    """Quantize every site of a model that the target serves, and list the others in its metadata.

    Raises UsageError for a product that the target would serve under other settings than those that were given.
    """
    level = target.capabilities.traits.get(ACCURACY_LEVEL) if config.accuracy_level is None else config.accuracy_level
    rewriter = Rewriter(model.graph, level)
    outcome = Outcome()
    for site in find_sites(model.graph):
        if scheme := scheme_for(site, config, target.capabilities):
            rewriter.rewrite(site, scheme)
            outcome.quantized += 1
        else:
            if not site.is_look_up:
                refuse_settings(site, config, target)
            rewriter.keep(site)
            outcome.kept.append(site)
    remove_unused(model.graph)
    if outcome.kept:
        model.metadata_props[FLOAT_MATRICES] = json.dumps([site.name for site in outcome.kept])
    return outcome


def _nothing_quantized(kept: list[Site], config: QuantizeWeightsConfig, target: Target) -> str:
    if not kept:
        return "the model has no matrix of float weights to quantize"
    first = next((site for site in kept if not site.is_look_up), kept[0])
    why = reason(first, config, target.capabilities)
    return f"'{target.provider}' serves none of the model's matrices quantized: '{first.weight.name}': {why}"
