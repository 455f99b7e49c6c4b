"""The pass `scale-channels`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from drupe.api import Capabilities, Context, Model, Shape
from drupe_blockquant import Scheme
from drupe_blockquant.scheme import Method
from drupe_equalize.awq import best_scales
from drupe_equalize.calibration import scale_blocks
from drupe_equalize.groups import Group
from drupe_equalize.statistics import Statistics
from drupe_nbits import Site, candidates, first_served, method_for
from drupe_onnx import ir
from drupe_text import CalibratingPass, CalibrationConfig


class ScaleChannelsConfig(CalibrationConfig):
    """What `scale-channels` can be told: the text, and how the weights are going to be quantized."""

    bits: Literal[2, 4, 8] = Field(4, description="bits of a weight, where no earlier pass has set its scheme")
    block_size: Literal[16, 32, 64, 128, 256] | None = Field(None, description="weights that share a scale")
    symmetric: bool = Field(False, description="without zero points")
    quality: Literal["fast", "balanced", "best"] = Field("balanced", description="what the weights are quantized with")
    method: Method | None = Field(None, description="how 4 and 2 bits are found; by default as the quality says")

    @field_validator("method")
    @classmethod
    def _is_gone_by(cls, method: Method | None, info: ValidationInfo) -> Method | None:
        if method is not None and info.data.get("quality") == "best":
            raise ValueError("with the quality 'best', GPTQ finds the levels")
        return method

    def scheme_for(self, site: Site, capabilities: Capabilities) -> Scheme | None:
        """The scheme that a matrix is going to have on the target; None where it stays in floating point."""
        found = site.scheme or first_served(
            site, candidates(site, self.bits, self.symmetric, self.block_size, capabilities), capabilities
        )
        return found and replace(found, method=method_for(found.bits, self.quality, self.method))


class ScaleChannels(CalibratingPass):
    """Activation-aware scaling (AWQ, Lin et al. 2023, arXiv 2306.00978).

    Channels that carry large values get larger weights, which keep more of their precision in a block. The scales are
    powers of each channel's mean magnitude; a grid search takes the power under which the quantized products give the
    least error on the calibration text. They are divided out of the norm or the product before: the model computes
    what it did.
    """

    name = "scale-channels"
    summary = "scales channels so that quantizing costs the output less, measured on text (AWQ)"
    revision = 3
    Config = ScaleChannelsConfig
    requires = Shape("onnx", {"weights": "float"})
    ensures = Shape("onnx", {"weights": "float"})
    libraries = ("drupe-blockquant", "drupe-layerwise", "drupe-text", "onnxruntime")

    def run(self, model: Model, config: ScaleChannelsConfig, context: Context) -> Model:
        def choose(group: Group, measured: Statistics, graph: ir.Graph) -> NDArray[np.float32]:
            schemes = [(site.rows, config.scheme_for(site, context.target.capabilities)) for site in group.sites(graph)]
            quantized = [(rows, scheme) for rows, scheme in schemes if scheme is not None]
            mean = group.mean(measured.mean)
            if not quantized:
                return np.ones_like(mean)
            return best_scales(quantized, measured.sample, mean, group.channels, context.threads)

        scale_blocks(model.payload, self.sequences(model, config, context), context, choose, "scaling channels")
        return model
