"""Calibration: the text in the model's tokens, and what goes into each matrix of a block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError
from drupe_layerwise import Segment
from drupe_nbits import Site

Rows = NDArray[np.float32]


def groups_of(segment: Segment, sites: Sequence[Site]) -> list[list[Site]]:
    """The sites of a segment, those together that multiply with one value, in the graph's order."""
    here = set(segment.nodes)
    groups: dict[object, list[Site]] = {}
    for site in sites:
        if site.node in here:
            groups.setdefault((site.activations, site.is_look_up), []).append(site)
    return list(groups.values())


def refuse_non_finite(rows: Rows, group: Sequence[Site]) -> None:
    """Raise ModelError where calibration makes NaN or Inf; it names the matrix that they would go into."""
    if not np.isfinite(rows).all():
        raise ModelError(
            f"the calibration text makes NaN or Inf go into '{group[0].name}'",
            cure="look for very large weights in the source, or calibrate a float32 graph",
        )
