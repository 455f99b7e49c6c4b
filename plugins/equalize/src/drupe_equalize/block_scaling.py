"""Scaling by calibration: block by block, the input of each group is measured, and the group is scaled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from drupe.api import Context, ModelError, Notice
from drupe_equalize.activation_statistics import Statistics
from drupe_equalize.groups import Group, find_groups, scale_group
from drupe_layerwise import LayerByLayer, Segment
from drupe_nbits import find_experts
from drupe_onnx import OnnxPackage, ir

SAMPLE = 512
"""How many tokens of a group's input are kept as a sample."""

SECOND_MATRICES = Notice(
    "weights",
    "partly scaled",
    "of experts, only the matrices that read the layer's norm are scaled, and not those after the activation",
)

NO_MATRICES = Notice(
    "weights",
    "partly scaled",
    "experts are not scaled: what they read is read by other nodes as well",
)

Choose = Callable[[Group, Statistics, ir.Graph], NDArray[np.float32]]
"""Chooses the scales of a group, one for each channel of its giver."""


def scale_blocks(
    package: OnnxPackage, sequences: Sequence[Sequence[int]], context: Context, choose: Choose, label: str
) -> list[Notice]:
    """Scale every group in the decoder's blocks by the scales that `choose` gives. Raises ModelError for no group.

    Returns a notice for a package with experts, whose second matrices no scales reach.
    """
    model = package.component
    tokens, found = sum(map(len, sequences)), list[Group]()
    with LayerByLayer(model, sequences, context) as layers:
        blocks = [segment for segment in layers.segments if segment.block is not None]
        with context.progress.task(label, len(blocks), "block") as progress:
            for segment in blocks:
                found += _scale_block(layers, segment, tokens, choose)
                progress.advance(1)
                if segment is not blocks[-1]:
                    layers.advance(segment)
    if not found:
        raise ModelError(
            "no matrix product follows a norm or a product that could be divided by its scales",
            cure="leave --prepare out for this model",
        )
    if not find_experts(model.graph):
        return []
    return [SECOND_MATRICES if any(group.experts for group in found) else NO_MATRICES]


def _scale_block(layers: LayerByLayer, segment: Segment, tokens: int, choose: Choose) -> list[Group]:
    """Scale the groups of one block, and return them."""
    groups = find_groups(segment.graph, segment.nodes)
    measured = {group.value.name or "": Statistics(group.name, tokens, SAMPLE) for group in groups}
    layers.collect(segment, measured, lambda name, rows: measured[name].add(rows))
    for group in groups:
        scales = choose(group, measured[group.value.name or ""], segment.graph)
        if (scales != 1).any():
            scale_group(segment.graph, group, scales)
    return groups
