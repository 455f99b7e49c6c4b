"""Expressions for quantized matrices: rows with the importance of their columns, and the blocks of levels."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError, Progress
from drupe_blockquant import NonFiniteError, Quantized, Scheme, is_ready, quantize_rows, warm_up
from drupe_onnx import Array, Expression, Files, OutputSpec, Producer, ir, name_of

PARTS = ("weight", "scales", "zero_points", "units")
WEIGHT, SCALES, ZERO_POINTS, UNITS = range(4)
"""The outputs' names. Zero points exist for asymmetric schemes, units where the scheme's scales have two levels."""


class Weighted(Expression):
    """The matrix `source` [N, K] with the `importance` of its columns: how much an error in each counts, float32 [K].

    The values are those of `source`.
    """

    source: Expression
    importance: Array

    def __post_init__(self) -> None:
        if self.importance.shape != self.source.shape[1:]:
            raise ValueError(
                f"importance of shape {self.importance.shape} does not fit a matrix of {self.source.shape}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def dtype(self) -> ir.DataType:
        return self.source.dtype

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return self.source.rows(start, stop, files)

    def columns(self, first: int, last: int, files: Files) -> NDArray[Any]:
        return self.source.columns(first, last, files)

    def working_bytes(self, rows: int) -> int:
        return self.source.working_bytes(rows)

    def column_bytes(self, columns: int) -> int:
        return self.source.column_bytes(columns)


class QuantizeBlocks(Producer, dict=True):
    """The rows of `source`, a matrix [N, K], quantized by `scheme`, in the layout of MatMulNBits.

    importance: how much an error in each column counts in the search, float32 [K]; None where all count the same.

    Outputs: values uint8 [N, blocks, block_size * bits / 8]; scales [N, blocks] in `scale_dtype`; for an asymmetric
    scheme, zero points uint8 [N, ceil(blocks * bits / 8)]. Where scales have two levels, the scales are uint8, and
    there are units, bfloat16 [N, 1].
    """

    source: Expression
    scheme: Scheme
    scale_dtype: ir.DataType
    importance: Array | None = None

    @property
    def rows(self) -> int:
        return self.source.shape[0]

    @property
    def source_name(self) -> str:
        """The name of the first tensor that the matrix is made from."""
        return name_of(self.source)

    @property
    def label(self) -> str:
        return f"quantize {self.source_name}"

    @functools.cached_property
    def outputs(self) -> tuple[OutputSpec, ...]:
        n, k = self.source.shape
        blocks = self.scheme.blocks(k)
        byte, two_level = ir.DataType.UINT8, self.scheme.two_level
        found = [
            OutputSpec(PARTS[WEIGHT], (n, blocks, self.scheme.packed_width(k) // blocks), byte),
            OutputSpec(PARTS[SCALES], (n, blocks), byte if two_level else self.scale_dtype),
        ]
        if not self.scheme.symmetric:
            found.append(OutputSpec(PARTS[ZERO_POINTS], (n, self.scheme.zero_point_width(k)), byte))
        if two_level:
            found.append(OutputSpec(PARTS[UNITS], (n, 1), ir.DataType.BFLOAT16))
        return tuple(found)

    def prepare(self, progress: Progress) -> None:
        dtype, weighted = self.source.dtype.numpy(), self.importance is not None
        if not is_ready(dtype, weighted=weighted, method=self.scheme.method):
            with progress.task("compiling the quantizer for this processor, once", 1, "kernel"):
                warm_up(dtype, weighted=weighted, method=self.scheme.method)
                progress.advance(1)

    def produce(self, start: int, stop: int, files: Files) -> tuple[NDArray[Any], ...]:
        with files.trusting():
            rows = self.source.rows(start, stop, files)
        out = [files.empty((stop - start, *spec.shape[1:]), spec.dtype.numpy()) for spec in self.outputs]
        try:
            quantize_rows(
                rows,
                self.scheme,
                self.scale_dtype.numpy(),
                importance=None if self.importance is None else self.importance.values,
                out=Quantized(*out, *[None] * (len(PARTS) - len(out))),
            )
        except NonFiniteError as error:
            self.source.rows(start, stop, files)  # checks what it reads, and names the right tensor of several
            raise ModelError(
                f"the tensor '{self.source_name}' holds NaN or Inf at [{start + error.row}, {error.column}]",
                cure="download or train the checkpoint again: a model whose weights are NaN or Inf does not work",
            ) from error
        return tuple(out)

    def working_bytes(self, rows: int) -> int:
        k = self.source.shape[1]
        made = rows * self.scheme.bytes_for(1, k, np.dtype(self.scale_dtype.numpy()).itemsize)
        return self.source.working_bytes(rows) + made


class QuantizeIdentities(QuantizeBlocks):
    """Matrices of zeros and ones, exactly: levels one apart, scales of 1. An asymmetric scheme has the zero point 0."""

    @property
    def label(self) -> str:
        return "write identity matrices"

    def prepare(self, progress: Progress) -> None:
        """Nothing is compiled."""

    def produce(self, start: int, stop: int, files: Files) -> tuple[NDArray[Any], ...]:
        scheme, values = self.scheme, self.source.rows(start, stop, files).astype(np.uint8)
        blocks = scheme.blocks(values.shape[1])
        levels = np.zeros((stop - start, blocks * scheme.block_size), np.uint8)
        levels[:, : values.shape[1]] = values
        levels += 1 << (scheme.bits - 1) if scheme.symmetric else 0
        shifts = np.arange(0, 8, scheme.bits).astype(np.uint8)
        apart = levels.reshape(stop - start, blocks, -1, len(shifts)) << shifts
        found = [apart.sum(-1, dtype=np.uint8), np.ones((stop - start, blocks), self.scale_dtype.numpy())]
        zeros = [np.zeros((stop - start, *spec.shape[1:]), spec.dtype.numpy()) for spec in self.outputs[len(found) :]]
        return (*found, *zeros)

    def working_bytes(self, rows: int) -> int:
        return super().working_bytes(rows) + 3 * rows * self.source.shape[1]
