"""Solver: quantizes matrices by GPTQ, with a range of rows on each thread, into a file."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from drupe.api import Context, ModelError
from drupe_blockquant import GptqFactor, NonFiniteError, Scheme, gptq_rows
from drupe_nbits import QuantizeBlocks, Site
from drupe_onnx import Access, ExternalTensor, Files

ROWS = 256
"""How many rows one call solves. The ranges, and so the result, do not depend on the number of threads."""
ALIGNMENT = 64


@dataclass(frozen=True)
class Solver:
    """Writes solved matrices, one after another, into the file `path`."""

    path: Path
    context: Context

    def solve(self, site: Site, scheme: Scheme, factor: GptqFactor) -> list[ExternalTensor]:
        """The parts of a site, as in `QuantizeBlocks`: levels, scales, and zero points or units by the scheme.

        Raises ModelError for weights that are not finite, and Cancelled.
        """
        parts = self._places(site, scheme)
        with self.path.open("r+b") as file, threadpool_limits(1, "blas"):
            for start, arrays in self._solved(site, scheme, factor):
                for part, array in zip(parts, arrays, strict=True):
                    _write(file, part, start, array)
        return parts

    def _places(self, site: Site, scheme: Scheme) -> list[ExternalTensor]:
        """The place of each part, at the end of the file."""
        self.path.touch()
        end, parts = self.path.stat().st_size, []
        for spec in QuantizeBlocks(site.rows, scheme, site.dtype).outputs:
            start = -(-end // ALIGNMENT) * ALIGNMENT
            parts.append(ExternalTensor(self.path, spec.dtype, spec.shape, start))
            end = start + parts[-1].nbytes
        with self.path.open("r+b") as file:
            file.truncate(end)
        return parts

    def _solved(self, site: Site, scheme: Scheme, factor: GptqFactor) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
        """Row ranges when they are solved: the first row's number and the parts."""

        def solved(at: int) -> tuple[int, tuple[NDArray[Any], ...]]:
            self.context.stop_if_cancelled()
            try:
                result = gptq_rows(rows[at : at + ROWS], factor, scheme, site.dtype.numpy())
            except NonFiniteError as error:
                raise ModelError(
                    f"'{site.name}' holds NaN or Inf at [{start + at + error.row}, {error.column}]",
                    cure="download or train the checkpoint again: a model whose weights are NaN or Inf does not work",
                ) from error
            return start + at, tuple(part for part in result if part is not None)

        with Files() as files, ThreadPoolExecutor(self.context.threads) as pool:
            slab = self._rows_at_once(site)
            for start in range(0, site.rows.row_count, slab):
                rows = site.rows.rows(start, min(start + slab, site.rows.row_count), files)
                yield from pool.map(solved, range(0, len(rows), ROWS))

    def _rows_at_once(self, site: Site) -> int:
        """How many rows are read at a time: as the memory budget allows; all if rows cannot be read separately."""
        if site.rows.access == Access.WHOLE:
            return site.rows.row_count
        fitting = self.context.memory_budget // max(1, site.rows.working_bytes(ROWS))
        return ROWS * max(1, fitting)


def _write(file: BinaryIO, part: ExternalTensor, row: int, array: NDArray[Any]) -> None:
    file.seek(part.offset + row * part.row_size * array.itemsize)
    file.write(np.ascontiguousarray(array).view(np.uint8).data)  # as bytes: buffers do not support bfloat16
