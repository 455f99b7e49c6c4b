"""The pass `smooth-activations`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from drupe.api import Context, Form, Model
from drupe_equalize.activation_statistics import Statistics
from drupe_equalize.block_scaling import scale_blocks
from drupe_equalize.groups import Group
from drupe_onnx import Expression, Files, ir, numeric
from drupe_text import CalibratingPass, CalibrationConfig

SMALLEST = 1e-5
"""The smallest magnitude in a scale: without it, a channel that is never used would get an infinite scale."""
_CHUNK = 8 << 20  # bytes of float32 weights that are read at once

Float32 = NDArray[np.float32]


class SmoothActivationsConfig(CalibrationConfig):
    """The settings of `smooth-activations`: the text, and how much is moved from activations to weights."""

    alpha: float = Field(
        0.5, ge=0, le=1, description="1 moves the whole size of a channel into the weights, 0 out of the weights"
    )


class SmoothActivations(CalibratingPass):
    """Moves large values from activations into weights (SmoothQuant, Xiao et al. 2022, arXiv 2211.10438).

    It prepares a model for activations of 8 bits, which MatMulNBits uses at accuracy level 4. Each channel j is divided
    by max|x_j|^alpha / max|w_j|^(1 - alpha), and the weights of the products are multiplied with the same number.
    """

    name = "smooth-activations"
    summary = "moves large values from activations into weights, measured on a text (SmoothQuant)"
    revision = 6
    Config = SmoothActivationsConfig
    requires = Form("onnx", {"weights": ("float", "mixed")})
    ensures = Form("onnx")
    libraries = ("drupe-layerwise", "drupe-text", "onnxruntime")

    def run(self, model: Model, config: SmoothActivationsConfig, context: Context) -> Model:
        def choose(group: Group, measured: Statistics, graph: ir.Graph) -> Float32:
            matrices = [
                *(site.rows for site in group.sites(graph)),
                *(site.up.rows for site in group.expert_sites(graph)),
            ]
            weights = np.max([largest_of_columns(each) for each in matrices], axis=0)
            return smooth_scales(group.most(measured.largest), group.most(weights), config.alpha)

        text = self.sequences(model, config, context)
        return model.noticed(*scale_blocks(model.payload, text, context, choose, "smoothing activations"))


def smooth_scales(activations: Float32, weights: Float32, alpha: float) -> Float32:
    """The scale of each channel, from the largest magnitudes of activations and weights, [channels]; 1 for zeros.

    Weights are multiplied with the scales, activations divided by them.
    """
    used = (activations > 0) & (weights > 0)
    scales = np.ones_like(activations)
    scales[used] = np.maximum(activations[used] ** alpha / weights[used] ** (1 - alpha), SMALLEST)
    return scales


def largest_of_columns(matrix: Expression) -> Float32:
    """The largest magnitude in each column of `matrix` [N, K]."""
    rows, columns = matrix.shape
    largest = np.zeros(columns, np.float32)
    step = max(1, _CHUNK // (4 * columns))
    with Files() as files:
        for start in range(0, rows, step):
            held = numeric.cast(matrix.rows(start, min(start + step, rows), files), ir.DataType.FLOAT, files)
            np.maximum(largest, np.abs(held).max(0), out=largest)
    return largest
