"""Quantizing experts by the settings of `quantize-weights`."""

from __future__ import annotations

from drupe.api import Notice, Target, replace
from drupe_blockquant.scheme import BITS
from drupe_nbits import ExpertSite, expert_scheme, find_experts, keep_experts, quantize_experts
from drupe_onnx import capabilities_of, ir
from drupe_packed import rounded_again
from drupe_quant_rtn.configuration import QuantizeWeightsConfig


def rewrite_experts(graph: ir.Graph, config: QuantizeWeightsConfig, target: Target) -> list[ExpertSite]:
    """Quantize all experts that the target supports. Returns those that stay in floating point.

    Raises UsageError for experts that the target would support with other settings.
    """
    kept = []
    for site in find_experts(graph):
        found = expert_scheme(site, config.bits, config.symmetric, config.block_size, target, BITS)
        if found is not None:
            scheme = replace(found, method=config.method_for(found.bits))
            quantize_experts(graph, site, scheme, capabilities_of(target))
        else:
            keep_experts(graph, site)
            kept.append(site)
    return kept


def notices(graph: ir.Graph, config: QuantizeWeightsConfig) -> list[Notice]:
    """A notice for experts that are stored as floats of 4 bits, and are rounded again."""
    matrices = [each.rows for site in find_experts(graph) for each in site.weights]
    return rounded_again(matrices) if config.bits < 8 else []
