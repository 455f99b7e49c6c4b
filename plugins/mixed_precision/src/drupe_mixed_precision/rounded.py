"""Rounded: a matrix that was quantized and dequantized, for measuring what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from drupe_blockquant import Scheme, dequantize_rows, quantize_rows
from drupe_mixed_precision.groups import Experts, Group
from drupe_nbits import put_expert_rows, replace_rows
from drupe_onnx import Expression, Files, ir

FLOAT = 4  # bytes


class Rounded(Expression):
    """The rows of `source` [N, K], quantized by a scheme and dequantized again, in the source's type."""

    source: Expression
    scheme: Scheme

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def dtype(self) -> ir.DataType:
        return self.source.dtype

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        rows = self.source.rows(start, stop, files)
        values = dequantize_rows(quantize_rows(rows, self.scheme), self.scheme, self.shape[1])
        return values.astype(rows.dtype, copy=False)

    def working_bytes(self, rows: int) -> int:
        k = self.shape[1]
        return self.source.working_bytes(rows) + self.scheme.bytes_for(rows, k, FLOAT) + 2 * rows * k * FLOAT


@contextmanager
def rounded(parts: Sequence[Group | Experts], scheme: Scheme) -> Iterator[None]:
    """Replace the matrices of some parts by rounded ones inside the `with` block."""
    weights = [weight for part in parts for weight in _weights(part)]
    before = [weight.const_value for weight in weights]
    try:
        for part in parts:
            _round(part, scheme)
        yield
    finally:
        for weight, value in zip(weights, before, strict=True):
            weight.const_value = value


def _weights(part: Group | Experts) -> list[ir.Value]:
    if isinstance(part, Experts):
        return [matrices.weight for matrices in part.site.weights]
    return [site.weight for site in part.sites]


def _round(part: Group | Experts, scheme: Scheme) -> None:
    if isinstance(part, Experts):
        for matrices in part.site.weights:
            put_expert_rows(matrices, Rounded(matrices.rows, scheme))
    else:
        for site in part.sites:
            replace_rows(site, Rounded(site.rows, scheme))
