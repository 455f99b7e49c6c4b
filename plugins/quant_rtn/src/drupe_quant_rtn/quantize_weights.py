"""The pass `quantize-weights`."""

from __future__ import annotations

import json

from drupe.api import Context, Model, ModelError, Pass, Shape, Target
from drupe_nbits import ACCURACY_LEVEL, Rewriter, Site, find_sites, remove_unused
from drupe_onnx import OnnxPackage, ir
from drupe_quant_rtn.choosing import reason, refuse_settings, scheme_for
from drupe_quant_rtn.configuration import QuantizeWeightsConfig

FLOAT_MATRICES = "drupe.float_matrices"
"""The key of a model's metadata that lists, as JSON, the matrices that stay in floating point."""


class QuantizeWeights(Pass):
    """Puts quantized weights in the place of float ones. It only rewrites the graph; the writer computes."""

    name = "quantize-weights"
    summary = "quantizes weights in blocks to 2, 4 or 8 bits, without data"
    revision = 2
    Config = QuantizeWeightsConfig
    requires = Shape("onnx", {"weights": "float"})
    ensures = Shape("onnx", {"weights": "quantized"})
    libraries = ("drupe-blockquant",)

    def run(self, model: Model, config: QuantizeWeightsConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        quantized, kept = 0, list[Site]()
        for component in package.components.values():
            count, left = quantize_graph(component.graph, config, context.target)
            if left:
                component.metadata_props[FLOAT_MATRICES] = json.dumps([site.weight.name for site in left])
            quantized, kept = quantized + count, kept + left
        if not quantized:
            raise ModelError(
                _nothing_quantized(kept, config, context.target),
                where=model.location,
                cure="choose a floating-point --precision for it",
            )
        return model


def quantize_graph(graph: ir.Graph, config: QuantizeWeightsConfig, target: Target) -> tuple[int, list[Site]]:
    """Quantize every site of a graph that the target serves; returns how many, and the sites left in floating point.

    Raises UsageError for a product that the target would serve under other settings than those that were given.
    """
    level = target.capabilities.traits.get(ACCURACY_LEVEL) if config.accuracy_level is None else config.accuracy_level
    rewriter = Rewriter(graph, level)
    sites, kept = find_sites(graph), list[Site]()
    for site in sites:
        if scheme := scheme_for(site, config, target.capabilities):
            rewriter.rewrite(site, scheme)
            continue
        if not site.is_look_up:
            refuse_settings(site, config, target)
        rewriter.keep(site)
        kept.append(site)
    remove_unused(graph)
    return len(sites) - len(kept), kept


def _nothing_quantized(kept: list[Site], config: QuantizeWeightsConfig, target: Target) -> str:
    if not kept:
        return "the model has no matrix of float weights to quantize"
    first = next((site for site in kept if not site.is_look_up), kept[0])
    why = reason(first, config, target.capabilities)
    return f"'{target.provider}' serves none of the model's matrices quantized: '{first.weight.name}': {why}"
