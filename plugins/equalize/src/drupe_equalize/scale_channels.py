"""The pass `scale-channels`."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from drupe.api import Context, Form, Model, replace
from drupe_blockquant import Scheme
from drupe_blockquant.scheme import Method
from drupe_equalize.activation_statistics import Statistics
from drupe_equalize.awq import best_scales
from drupe_equalize.block_scaling import scale_blocks
from drupe_equalize.groups import Group
from drupe_nbits import ExpertSite, Site, candidates, expert_schemes, first_served, method_for
from drupe_onnx import Capabilities, capabilities_of, ir
from drupe_text import CalibratingPass, CalibrationConfig


class ScaleChannelsConfig(CalibrationConfig):
    """The settings of `scale-channels`: the text, and how the weights will be quantized."""

    bits: Literal[2, 4, 8] = Field(4, description="bits of a weight, where no earlier pass has set its scheme")
    block_size: Literal[16, 32, 64, 128, 256] | None = Field(None, description="weights that share a scale")
    symmetric: bool = Field(False, description="without zero points")
    method: Method = Field("search", description="method for 4 and 2 bits; 8 bits are always rounded to nearest")

    def scheme_for(self, site: Site, capabilities: Capabilities) -> Scheme | None:
        """The scheme that a matrix will have on the target; None where it stays in floating point."""
        found = site.scheme or first_served(
            site, candidates(site, self.bits, self.symmetric, self.block_size, capabilities), capabilities
        )
        return found and replace(found, method=method_for(found.bits, self.method))

    def scheme_for_experts(self, site: ExpertSite, capabilities: Capabilities) -> Scheme | None:
        """The scheme that experts will have on the target; None where they stay in floating point."""
        found = expert_schemes(site, self.bits, self.symmetric, self.block_size, capabilities)
        return replace(found[0], method=method_for(found[0].bits, self.method)) if found else None


class ScaleChannels(CalibratingPass):
    """Activation-aware scaling (AWQ, Lin et al. 2023, arXiv 2306.00978).

    Channels with large values get larger weights, which keep more of their precision in a block. The scales are powers
    of each channel's mean magnitude; a grid search chooses the power for which the quantized products have the least
    error on the calibration text. The norm or product before is divided by the scales, so the model computes the same
    results.
    """

    name = "scale-channels"
    summary = "scales channels so that quantizing changes the output less, measured on a text (AWQ)"
    revision = 6
    Config = ScaleChannelsConfig
    requires = Form("onnx", {"weights": ("float", "mixed")})
    ensures = Form("onnx")
    libraries = ("drupe-blockquant", "drupe-layerwise", "drupe-text", "onnxruntime")

    def run(self, model: Model, config: ScaleChannelsConfig, context: Context) -> Model:
        def choose(group: Group, measured: Statistics, graph: ir.Graph) -> NDArray[np.float32]:
            capabilities = capabilities_of(context.target)
            schemes = [(site.rows, config.scheme_for(site, capabilities)) for site in group.sites(graph)]
            schemes += [
                (site.up.rows, config.scheme_for_experts(site, capabilities)) for site in group.expert_sites(graph)
            ]
            quantized = [(rows, scheme) for rows, scheme in schemes if scheme is not None]
            mean = group.mean(measured.mean)
            if not quantized:
                return np.ones_like(mean)
            return best_scales(quantized, measured.sample, mean, group.channels, context.threads)

        text = self.sequences(model, config, context)
        return model.noticed(*scale_blocks(model.payload, text, context, choose, "scaling channels"))
