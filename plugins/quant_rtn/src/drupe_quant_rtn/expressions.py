"""QuantizeBlocks: packed values, scales and zero points of a matrix, from one walk over its rows."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError, Progress
from drupe_blockquant import NonFiniteError, Quantized, Scheme, is_ready, quantize_rows, warm_up
from drupe_onnx import Expression, Files, OutputSpec, Producer, ir
from drupe_onnx.expressions import name_of

WEIGHT, SCALES, ZERO_POINTS = 0, 1, 2
"""Which output is which; the last one is there only where the scheme is asymmetric."""


@dataclass(frozen=True)
class QuantizeBlocks(Producer):
    """The rows of `source`, a matrix [N, K], quantized as `scheme` says, in the layout of MatMulNBits.

    Outputs: values uint8 [N, blocks, block_size * bits / 8]; scales [N, blocks] in `scale_dtype`; and, where the scheme
    is asymmetric, zero points uint8 [N, ceil(blocks * bits / 8)].
    """

    source: Expression
    scheme: Scheme
    scale_dtype: ir.DataType

    @property
    def rows(self) -> int:
        return self.source.shape[0]

    @property
    def source_name(self) -> str:
        """The name of the first tensor that the matrix is made of."""
        return name_of(self.source)

    @property
    def label(self) -> str:
        return f"quantize {self.source_name}"

    @functools.cached_property
    def outputs(self) -> tuple[OutputSpec, ...]:
        n, k = self.source.shape
        blocks = self.scheme.blocks(k)
        found = (
            OutputSpec("weight", (n, blocks, self.scheme.packed_width(k) // blocks), ir.DataType.UINT8),
            OutputSpec("scales", (n, blocks), self.scale_dtype),
        )
        if self.scheme.symmetric:
            return found
        return (*found, OutputSpec("zero_points", (n, self.scheme.zero_point_width(k)), ir.DataType.UINT8))

    def prepare(self, progress: Progress) -> None:
        dtype = self.source.dtype.numpy()
        if not is_ready(dtype):
            with progress.task("compiling the quantizer for this processor, once", 1, "kernel"):
                warm_up(dtype)
                progress.advance(1)

    def produce(self, start: int, stop: int, files: Files) -> tuple[NDArray[Any], ...]:
        with files.trusting():
            rows = self.source.rows(start, stop, files)
        out = [files.empty((stop - start, *spec.shape[1:]), spec.dtype.numpy()) for spec in self.outputs]
        try:
            quantize_rows(rows, self.scheme, self.scale_dtype.numpy(), out=Quantized(*out, *[None] * (3 - len(out))))
        except NonFiniteError as error:
            self.source.rows(start, stop, files)  # checks what it reads, and names the very tensor among several
            raise ModelError(
                f"the tensor '{self.source_name}' holds NaN or Inf at [{start + error.row}, {error.column}]",
                cure="fetch the checkpoint again, or train it again: a model with NaN or Inf in it computes nothing",
            ) from error
        return tuple(out)

    def working_bytes(self, rows: int) -> int:
        k = self.source.shape[1]
        made = rows * self.scheme.bytes_for(1, k, np.dtype(self.scale_dtype.numpy()).itemsize)
        return self.source.working_bytes(rows) + made
