"""The pass `weigh-channels`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from drupe.api import Context, Form, Model, Notice
from drupe_layerwise import LayerByLayer, Segment
from drupe_nbits import Site, find_experts, find_sites, weigh
from drupe_onnx import Array, OnnxPackage, ir
from drupe_quant_gptq.calibration import Rows, groups_of, refuse_non_finite
from drupe_text import CalibratingPass, CalibrationConfig

NOT_EXPERTS = Notice("weights", "not weighed", "the channels of experts count the same in the error search")


class WeighChannelsConfig(CalibrationConfig):
    """The settings of `weigh-channels`. A mean of squares needs few tokens."""

    calibration_sequences: int = Field(32, ge=1, description="how many sequences of the text are used")
    calibration_length: int = Field(256, ge=2, description="tokens in each sequence")


class WeighChannels(CalibratingPass):
    """Stores the mean square of each input channel at each matrix; the error search uses it as a weight.

    An error in a column of a matrix counts that much at its output. Matrices that several nodes share, as a tied
    embedding and head do, are left out, because they must get the same levels wherever they are used; so are experts.
    """

    name = "weigh-channels"
    summary = "measures how much each input channel of a matrix counts, for the error search"
    revision = 3
    Config = WeighChannelsConfig
    requires = Form("onnx", {"weights": ("float", "mixed")})
    ensures = Form("onnx", {"channels": "weighed"})
    libraries = ("drupe-layerwise", "numpy")

    def run(self, model: Model, config: WeighChannelsConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        sequences = self.sequences(model, config, context)
        weigh_graph(package.component, sequences, context)
        return model.noticed(*([NOT_EXPERTS] if find_experts(package.component.graph) else []))


def weigh_graph(model: ir.Model, sequences: Sequence[Sequence[int]], context: Context) -> None:
    """Weigh every matrix that only one product uses. Raises ModelError for NaN, and Cancelled."""
    sites = find_sites(model.graph)
    users = Counter(site.weight for site in sites)
    alone = [site for site in sites if users[site.weight] == 1 and not site.is_look_up]
    with LayerByLayer(model, sequences, context) as layers:
        blocks = sum(segment.block is not None for segment in layers.segments)
        with context.progress.task("weighing channels", blocks, "block") as progress:
            for segment in layers.segments:
                _weigh_segment(segment, alone, layers)
                if segment is not layers.segments[-1]:
                    layers.advance(segment)
                progress.advance(segment.block is not None)


def _weigh_segment(segment: Segment, sites: Sequence[Site], layers: LayerByLayer) -> None:
    groups = {group[0].activations.name or "": group for group in groups_of(segment, sites)}
    sums: dict[str, NDArray[np.float64]] = {}
    tokens = Counter[str]()

    def add(name: str, rows: Rows) -> None:
        refuse_non_finite(rows, groups[name][0].name)
        sums[name] = sums.get(name, 0) + np.einsum("tk,tk->k", rows, rows, dtype=np.float64)
        tokens[name] += len(rows)

    layers.collect(segment, groups, add, settled=True)
    for name, group in groups.items():
        for site in group:
            weigh(site, Array((sums[name] / tokens[name]).astype(np.float32)))
