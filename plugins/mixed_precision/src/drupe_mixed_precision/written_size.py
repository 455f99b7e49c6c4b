"""The size of a package once its matrices are quantized: its graphs and their weights, found without quantizing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drupe_blockquant import Scheme
from drupe_mixed_precision.assignment import assign_schemes, parts_of, reassign_experts
from drupe_nbits import ExpertSite, Rewriter, Site, find_experts, find_sites, finish, keep_experts, quantize_experts
from drupe_onnx import Capabilities, OnnxPackage, ir
from drupe_onnx.layout import Layout
from drupe_onnx.writer import graph_and_weight_bytes


def written_bytes(
    package: OnnxPackage,
    schemes: Sequence[Scheme | None],
    capabilities: Capabilities,
    *,
    experts: Mapping[str, Scheme] | None = None,
    bare: bool = False,
) -> int:
    """Bytes of graphs and weights as they will be written, with these schemes for `parts_of` the package.

    None leaves a part with the scheme that it has, or in floating point. experts: schemes of experts, by node, instead
    of their own. bare: without the metadata that only Drupe's passes leave in a graph.
    """
    trial = package.clone()
    assign_schemes(parts_of(trial), schemes)
    reassign_experts(trial, experts or {})
    for component in trial.components.values():
        _quantize(component, capabilities)
        if bare:
            _remove_metadata(component)
    return graph_and_weight_bytes(trial, {role: Layout(component) for role, component in trial.components.items()})


def _quantize(component: ir.Model, capabilities: Capabilities) -> None:
    """Rewrite a graph as a pass that quantizes does."""
    rewriter = Rewriter(component.graph, capabilities)
    kept: list[Site | ExpertSite] = []
    for site in find_sites(component.graph):
        if site.scheme is None:
            rewriter.keep(site)
            kept.append(site)
        else:
            rewriter.rewrite(site, site.scheme)
    for experts in find_experts(component.graph):
        if experts.scheme is None:
            keep_experts(component.graph, experts)
            kept.append(experts)
        else:
            quantize_experts(component.graph, experts, experts.scheme, capabilities)
    finish(component, kept)


def _remove_metadata(component: ir.Model) -> None:
    component.metadata_props.clear()
    for node in component.graph:
        node.metadata_props.clear()
