"""Calibration: groups of sites with one input, and the check of that input for NaN and Inf."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError
from drupe_layerwise import Segment
from drupe_nbits import Site

Rows = NDArray[np.float32]


def groups_of(segment: Segment, sites: Sequence[Site]) -> list[list[Site]]:
    """The sites of a segment in the graph's order, grouped by the value that they multiply with."""
    here = set(segment.nodes)
    groups: dict[object, list[Site]] = {}
    for site in sites:
        if site.node in here:
            groups.setdefault((site.activations, site.is_look_up), []).append(site)
    return list(groups.values())


def refuse_non_finite(rows: Rows, name: str) -> None:
    """Raise a ModelError that names the matrix, or the experts, if their input contains NaN or Inf."""
    if not np.isfinite(rows).all():
        raise ModelError(
            f"the input of '{name}' contains NaN or Inf for the calibration text",
            cure="check the source for very large weights, or calibrate a float32 graph",
        )
