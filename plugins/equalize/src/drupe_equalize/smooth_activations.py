"""The pass `smooth-activations`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from drupe.api import Context, Model, Shape
from drupe_equalize.calibration import scale_blocks
from drupe_equalize.groups import Group
from drupe_equalize.statistics import Statistics
from drupe_onnx import Expression, Files, ir, numeric
from drupe_text import CalibratingPass, CalibrationConfig

SMALLEST = 1e-5
"""Of scales: a channel that is never used wants none without end."""
_CHUNK = 8 << 20  # bytes of float32 weights that are looked at in one go

Float32 = NDArray[np.float32]


class SmoothActivationsConfig(CalibrationConfig):
    """What `smooth-activations` can be told: the text, and how much goes from activations to weights."""

    alpha: float = Field(0.5, ge=0, le=1, description="1 moves all of a channel's size into the weights, 0 out of them")


class SmoothActivations(CalibratingPass):
    """Moves large values from activations into weights (SmoothQuant, Xiao et al. 2022, arXiv 2211.10438).

    It prepares for activations of 8 bits, such as MatMulNBits has at accuracy level 4. Each channel j is divided by
    max|x_j|^alpha / max|w_j|^(1 - alpha), which the weights of the products are multiplied with.
    """

    name = "smooth-activations"
    summary = "moves large values from activations into weights, measured on text (SmoothQuant)"
    revision = 3
    Config = SmoothActivationsConfig
    requires = Shape("onnx", {"weights": "float"})
    ensures = Shape("onnx", {"weights": "float"})
    libraries = ("drupe-layerwise", "drupe-text", "onnxruntime")

    def run(self, model: Model, config: SmoothActivationsConfig, context: Context) -> Model:
        def choose(group: Group, measured: Statistics, graph: ir.Graph) -> Float32:
            weights = np.max([largest_of_columns(site.rows) for site in group.sites(graph)], axis=0)
            return smooth_scales(group.most(measured.largest), group.most(weights), config.alpha)

        scale_blocks(model.payload, self.sequences(model, config, context), context, choose, "smoothing activations")
        return model


def smooth_scales(activations: Float32, weights: Float32, alpha: float) -> Float32:
    """What each channel of the weights is multiplied with, by the largest magnitudes of both, [channels]; 1 for zeros.

    The channels of the activations are divided by it.
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
