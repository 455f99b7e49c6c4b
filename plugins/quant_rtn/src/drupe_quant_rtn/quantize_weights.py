"""The pass `quantize-weights`."""

from __future__ import annotations

from drupe.api import Context, Form, Model, ModelError, Pass, Target, UsageError
from drupe_blockquant import Scheme
from drupe_nbits import (
    ExpertSite,
    Rewriter,
    Site,
    find_sites,
    finish,
    float_precisions,
    is_quantized,
    kept_levels,
    nothing_quantized,
    refuse_overruled,
)
from drupe_onnx import OnnxPackage, capabilities_of, ir
from drupe_quant_rtn.configuration import QuantizeWeightsConfig
from drupe_quant_rtn.experts import notices, rewrite_experts
from drupe_quant_rtn.scheme_choice import reason, refuse_settings, scheme_for


class QuantizeWeights(Pass):
    """Replaces float weights by quantized ones. It only rewrites the graph; the writer computes the weights."""

    name = "quantize-weights"
    summary = "quantizes weights in blocks to 2, 4 or 8 bits, without data"
    revision = 4
    Config = QuantizeWeightsConfig
    requires = Form("onnx", {"weights": ("float", "mixed")})
    ensures = Form("onnx", {"weights": "quantized"})
    libraries = ("drupe-blockquant",)

    def refuse_whole(self, model: Model, config: QuantizeWeightsConfig, context: Context) -> None:
        """Raise an error for a model in which no matrix product of any part would be quantized."""
        package: OnnxPackage = model.payload
        graphs = [component.graph for component in package.components.values()]
        sites = [site for graph in graphs for site in find_sites(graph)]
        refuse_overruled(sites, config)
        if any(is_quantized(graph) for graph in graphs):
            return
        kept = []
        for site in sites:
            if not scheme_for(site, config, capabilities_of(context.target)):
                kept.append(site)
            elif not site.is_look_up:
                return
        for site in (site for site in kept if not site.is_look_up):
            refuse_settings(site, config, context.target)
        if not kept:
            what, cure = "the model has no matrix of float weights to quantize", float_precisions(context.target)
            raise ModelError(what, where=model.location, cure=cure or "make the package for another --provider")
        first = next((site for site in kept if not site.is_look_up), kept[0])
        raise nothing_quantized(first, reason(first, config, capabilities_of(context.target)), context.target)

    def run(self, model: Model, config: QuantizeWeightsConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        package.keep_sources()
        graph = package.component.graph
        noticed = model.noticed(*notices(graph, config), *kept_levels(graph, config.bits))
        quantize_graph(package.component, config, context.target)
        return noticed


def quantize_graph(model: ir.Model, config: QuantizeWeightsConfig, target: Target) -> None:
    """Quantize every site of a model that the target supports; list the others in its metadata.

    Raises UsageError for a product that the target would support with other settings.
    """
    rewriter = Rewriter(model.graph, capabilities_of(target), config.accuracy_level)
    kept: list[Site | ExpertSite] = []
    for site in find_sites(model.graph):
        if scheme := scheme_for(site, config, capabilities_of(target)):
            _refuse_useless_weights(site, scheme)
            rewriter.rewrite(site, scheme)
        else:
            if not site.is_look_up:
                refuse_settings(site, config, target)
            rewriter.keep(site)
            kept.append(site)
    kept += rewrite_experts(model.graph, config, target)
    finish(model, kept)


def _refuse_useless_weights(site: Site, scheme: Scheme) -> None:
    """Raise UsageError where weigh-channels has run and the method does not use channel weights."""
    if site.importance is not None and scheme.bits < 8 and scheme.method != "search":
        raise UsageError(
            f"the channel weights of weigh-channels have no effect with the method '{scheme.method}'",
            where=site.name,
            cure="use the method 'search', or leave weigh-channels out",
        )
