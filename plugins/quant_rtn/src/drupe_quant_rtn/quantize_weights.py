"""The pass `quantize-weights`."""

from __future__ import annotations

import json

from drupe.api import Context, Model, ModelError, Pass, Shape, Target, UsageError
from drupe_blockquant import Scheme
from drupe_nbits import Rewriter, Site, find_sites, is_quantized, remove_unused
from drupe_onnx import OnnxPackage, ir
from drupe_onnx.package import FLOAT_MATRICES
from drupe_quant_rtn.choosing import reason, refuse_settings, scheme_for
from drupe_quant_rtn.configuration import QuantizeWeightsConfig, useless_weights


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
        components = package.components.values()
        kept = [site for each in components for site in quantize_graph(each, config, context.target)]
        if not any(is_quantized(each.graph) for each in components):
            raise ModelError(
                _nothing_quantized(kept, config, context.target),
                where=model.location,
                cure="choose a floating-point --precision for it",
            )
        return model


def quantize_graph(model: ir.Model, config: QuantizeWeightsConfig, target: Target) -> list[Site]:
    """Quantize every site of a model that the target serves; list the others in its metadata, and return them.

    Raises UsageError for a product that the target would serve under other settings than those that were given.
    """
    rewriter = Rewriter(model.graph, target.capabilities, config.accuracy_level)
    kept = []
    for site in find_sites(model.graph):
        if scheme := scheme_for(site, config, target.capabilities):
            _refuse_useless_weights(site, scheme)
            rewriter.rewrite(site, scheme)
        else:
            if not site.is_look_up:
                refuse_settings(site, config, target)
            rewriter.keep(site)
            kept.append(site)
    remove_unused(model.graph)
    if kept:
        model.metadata_props[FLOAT_MATRICES] = json.dumps([site.name for site in kept])
    return kept


def _refuse_useless_weights(site: Site, scheme: Scheme) -> None:
    """Weighed channels that nothing goes by would have been measured for nothing."""
    if site.importance is not None and scheme.bits < 8 and scheme.method != "search":
        raise UsageError(
            useless_weights(scheme.method),
            where="--prepare weigh",
            cure="--method search, or leave --prepare weigh out",
        )


def _nothing_quantized(kept: list[Site], config: QuantizeWeightsConfig, target: Target) -> str:
    if not kept:
        return "the model has no matrix of float weights to quantize"
    first = next((site for site in kept if not site.is_look_up), kept[0])
    why = reason(first, config, target.capabilities)
    return f"'{target.provider}' serves none of the model's matrices quantized: '{first.weight.name}': {why}"
