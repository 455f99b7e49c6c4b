"""One embedding of the hidden states of a text's tokens, in numpy: what the graphs of packages compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import unknown

Rows = NDArray[np.float64]


def _weighted(rows: Rows) -> Rows:
    weights = np.arange(1, len(rows) + 1, dtype=np.float64)
    mean: Rows = (rows * weights[:, None]).sum(0) / weights.sum()
    return mean


POOLED: Mapping[str, Callable[[Rows], Any]] = {
    "cls": lambda rows: rows[0],
    "max": lambda rows: rows.max(0),
    "mean": lambda rows: rows.mean(0),
    "mean_sqrt_len_tokens": lambda rows: rows.sum(0) / np.sqrt(len(rows)),
    "weightedmean": _weighted,
    "lasttoken": lambda rows: rows[-1],
}
"""The formula of each mode, as in sentence-transformers."""


def pooled(hidden: NDArray[Any], modes: Sequence[str], *, normalized: bool) -> NDArray[np.float32]:
    """The embedding of one text's hidden states [tokens, hidden], without padding: [modes * hidden]."""
    rows = hidden.astype(np.float64)
    for mode in modes:
        if mode not in POOLED:
            raise unknown("pooling mode", mode, POOLED)
    embedding = np.concatenate([POOLED[mode](rows) for mode in modes])
    if normalized:
        embedding /= max(float(np.linalg.norm(embedding)), 1e-12)
    return embedding.astype(np.float32)
