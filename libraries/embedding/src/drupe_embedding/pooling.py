"""One embedding of the hidden states of a text's tokens, in numpy: what the graphs of packages compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import Record, unknown

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


ACTIVATED: Mapping[str, Callable[[Rows], Any]] = {
    "Identity": lambda values: values,
    "ReLU": lambda values: np.maximum(values, 0),
    "Sigmoid": lambda values: 1 / (1 + np.exp(-values)),
    "Tanh": np.tanh,
}
"""The formula of each activation function, by torch's names."""


class DenseLayer(Record):
    """A layer after pooling. matrix: [outputs, inputs]. bias: [outputs]; None without one. activation: of ACTIVATED."""

    matrix: NDArray[Any]
    bias: NDArray[Any] | None
    activation: str

    def __call__(self, embedding: Rows) -> Rows:
        """The layer's result [outputs] for an embedding [inputs]."""
        given = self.matrix.astype(np.float64) @ embedding
        found: Rows = ACTIVATED[self.activation](given if self.bias is None else given + self.bias.astype(np.float64))
        return found


def pooled(
    hidden: NDArray[Any], modes: Sequence[str], dense: Sequence[DenseLayer] = (), *, normalized: bool
) -> NDArray[np.float32]:
    """The embedding of one text's hidden states [tokens, hidden], without padding.

    It has modes * hidden values, or as many as the last layer of `dense` gives.
    """
    rows = hidden.astype(np.float64)
    for mode in modes:
        if mode not in POOLED:
            raise unknown("pooling mode", mode, POOLED)
    embedding = np.concatenate([POOLED[mode](rows) for mode in modes])
    for layer in dense:
        embedding = layer(embedding)
    if normalized:
        embedding /= max(float(np.linalg.norm(embedding)), 1e-12)
    return embedding.astype(np.float32)
