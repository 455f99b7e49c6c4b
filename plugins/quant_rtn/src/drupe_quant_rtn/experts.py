"""Quantizing experts by the settings of `quantize-weights`."""

from __future__ import annotations

from dataclasses import replace

from drupe.api import Notice, Target, UsageError
from drupe_blockquant import Scheme
from drupe_blockquant.scheme import BITS, BLOCK_SIZES
from drupe_nbits import ExpertSite, expert_refusal, expert_schemes, find_experts, keep_experts, quantize_experts
from drupe_onnx import Expression, capabilities_of, ir
from drupe_packed.mxfp4 import Mxfp4Values
from drupe_quant_rtn.configuration import QuantizeWeightsConfig

ROUNDED_AGAIN = Notice(
    "weights",
    "quantized again",
    "the checkpoint holds its experts as floats of 4 bits (MXFP4), and the operator takes integers",
    "--precision int8 comes closer to their values",
)


def rewrite_experts(graph: ir.Graph, config: QuantizeWeightsConfig, target: Target) -> list[ExpertSite]:
    """Quantize all experts that the target supports. Returns those that stay in floating point.

    Raises UsageError for experts that the target would support with other settings.
    """
    capabilities = capabilities_of(target)
    kept = []
    for site in find_experts(graph):
        schemes = expert_schemes(site, config.bits, config.symmetric, config.block_size, capabilities)
        if schemes:
            scheme = replace(schemes[0], method=config.method_for(schemes[0].bits))
            quantize_experts(graph, site, scheme, capabilities)
        else:
            _refuse_settings(site, config, target)
            keep_experts(graph, site)
            kept.append(site)
    return kept


def notices(graph: ir.Graph, config: QuantizeWeightsConfig) -> list[Notice]:
    """A notice for experts that are stored as floats of 4 bits, and are rounded again: the operator takes integers."""
    packed = any(_is_mxfp4(each.rows) for site in find_experts(graph) for each in (site.up, site.down))
    return [ROUNDED_AGAIN] if packed and config.bits < 8 else []


def _is_mxfp4(rows: Expression) -> bool:
    return isinstance(rows, Mxfp4Values) or any(map(_is_mxfp4, rows.inputs))


def _refuse_settings(site: ExpertSite, config: QuantizeWeightsConfig, target: Target) -> None:
    """Raise UsageError where other bits, or blocks of another size, would be supported."""
    capabilities = capabilities_of(target)

    def served(bits: int, block_size: int | None) -> bool:
        return bool(expert_schemes(site, bits, config.symmetric, block_size, capabilities))

    cures = [f"--block-size {size}" for size in BLOCK_SIZES if config.block_size and served(config.bits, size)]
    cures += [f"--precision int{bits}" for bits in BITS if bits != config.bits and served(bits, config.block_size)]
    if cures:
        size = f" in blocks of {config.block_size}" if config.block_size else ""
        tried = expert_refusal(site, Scheme(config.bits, config.block_size or 32, config.symmetric), capabilities)
        raise UsageError(
            f"'{target.provider}' cannot run the experts '{site.name}' at {config.bits} bits{size}: {tried}",
            where=f"block_size = {config.block_size}" if config.block_size else f"bits = {config.bits}",
            cure=" or ".join(cures),
        )
