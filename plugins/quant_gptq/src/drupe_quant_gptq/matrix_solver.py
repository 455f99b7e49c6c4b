"""Solver: quantizes matrices by GPTQ, with a range of rows on each thread, into a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from drupe.api import Context, ModelError, Record
from drupe_blockquant import GptqFactor, NonFiniteError, Scheme, gptq_rows
from drupe_nbits import QuantizeBlocks
from drupe_onnx import Access, Expression, ExternalTensor, Files, OutputSpec, ir

ROWS = 256
"""How many rows one call solves. The ranges, and so the result, do not depend on the number of threads."""
ALIGNMENT = 64


class Matrix(Protocol):
    """A matrix to solve. name: in messages. rows: [N, K]. dtype: the type of its scales."""

    @property
    def name(self) -> str: ...
    @property
    def rows(self) -> Expression: ...
    @property
    def dtype(self) -> ir.DataType: ...


class Solver(Record):
    """Writes solved matrices, one after another, into the file `path`."""

    path: Path
    context: Context

    def solve(self, matrix: Matrix, scheme: Scheme, factor: GptqFactor) -> list[ExternalTensor]:
        """The parts of a matrix, as in `QuantizeBlocks`: levels, scales, and zero points or units by the scheme.

        Raises ModelError for weights that are not finite, and Cancelled.
        """
        parts = self.places(QuantizeBlocks(matrix.rows, scheme, matrix.dtype).outputs)
        self.fill(parts, matrix, scheme, factor)
        return parts

    def places(self, specs: Sequence[OutputSpec]) -> list[ExternalTensor]:
        """The place of each part, at the end of the file."""
        self.path.touch()
        end, parts = self.path.stat().st_size, []
        for spec in specs:
            start = -(-end // ALIGNMENT) * ALIGNMENT
            parts.append(ExternalTensor(self.path, spec.dtype, spec.shape, start))
            end = start + parts[-1].nbytes
        with self.path.open("r+b") as file:
            file.truncate(end)
        return parts

    def fill(
        self, parts: Sequence[ExternalTensor], matrix: Matrix, scheme: Scheme, factor: GptqFactor, first: int = 0
    ) -> None:
        """Solve a matrix into the rows of `parts` from `first` on. Raises as `solve` does."""
        with self.path.open("r+b") as file, threadpool_limits(1, "blas"):
            for start, arrays in self._solved(matrix, scheme, factor):
                for part, array in zip(parts, arrays, strict=True):
                    _write(file, part, first + start, array)

    def keep(self, name: str, array: NDArray[Any]) -> ExternalTensor:
        """The place of an array, which is written."""
        (part,) = self.places([OutputSpec(name, array.shape, ir.DataType.from_numpy(array.dtype))])
        with self.path.open("r+b") as file:
            _write(file, part, 0, array)
        return part

    def _solved(
        self, matrix: Matrix, scheme: Scheme, factor: GptqFactor
    ) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
        """Row ranges when they are solved: the first row's number and the parts."""

        def solved(at: int) -> tuple[int, tuple[NDArray[Any], ...]]:
            self.context.stop_if_cancelled()
            try:
                result = gptq_rows(rows[at : at + ROWS], factor, scheme, matrix.dtype.numpy())
            except NonFiniteError as error:
                raise ModelError(
                    f"'{matrix.name}' holds NaN or Inf at [{start + at + error.row}, {error.column}]",
                    cure="download or train the checkpoint again: a model whose weights are NaN or Inf does not work",
                ) from error
            return start + at, tuple(part for part in result if part is not None)

        with Files() as files, ThreadPoolExecutor(self.context.threads) as pool:
            slab = self._rows_at_once(matrix)
            for start in range(0, matrix.rows.row_count, slab):
                rows = matrix.rows.rows(start, min(start + slab, matrix.rows.row_count), files)
                yield from pool.map(solved, range(0, len(rows), ROWS))

    def _rows_at_once(self, matrix: Matrix) -> int:
        """How many rows are read at a time: as the memory budget allows; all if rows cannot be read separately."""
        if matrix.rows.access == Access.WHOLE:
            return matrix.rows.row_count
        fitting = self.context.memory_budget // max(1, matrix.rows.working_bytes(ROWS))
        return ROWS * max(1, fitting)


def _write(file: BinaryIO, part: ExternalTensor, row: int, array: NDArray[Any]) -> None:
    file.seek(part.offset + row * part.row_size * array.itemsize)
    file.write(np.ascontiguousarray(array).view(np.uint8).data)  # as bytes: buffers do not support bfloat16
