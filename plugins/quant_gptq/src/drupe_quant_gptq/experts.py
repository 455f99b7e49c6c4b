"""Quantizing experts without a text, by the settings of `quantize-gptq`."""

from __future__ import annotations

from dataclasses import replace

from drupe_nbits import ExpertSite, expert_schemes, find_experts, keep_experts, method_for, quantize_experts
from drupe_onnx import Capabilities, ir
from drupe_quant_gptq.schemes import QuantizeGptqConfig


def rewrite_experts(graph: ir.Graph, config: QuantizeGptqConfig, capabilities: Capabilities) -> list[ExpertSite]:
    """Quantize all experts that the target supports. Returns those that stay in floating point."""
    kept = []
    for site in find_experts(graph):
        schemes = expert_schemes(site, config.bits, config.symmetric, config.block_size, capabilities)
        if schemes:
            scheme = replace(schemes[0], method=method_for(schemes[0].bits, "search"))
            quantize_experts(graph, site, scheme, capabilities)
        else:
            keep_experts(graph, site)
            kept.append(site)
    return kept
