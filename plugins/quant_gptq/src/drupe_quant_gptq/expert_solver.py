"""Solving experts by GPTQ: each expert's matrices on the rows that the router sends to it.

An error of an expert counts by the square of its weight in a row. An expert that few rows reach gets, in addition, the
mean over all rows, as if it had run so many of them (`PRIOR`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from drupe.api import Context
from drupe_blockquant import GptqFactor, Quantized, Scheme, dequantize_rows, gptq_factor
from drupe_files import disk_errors
from drupe_layerwise import Activation
from drupe_nbits import DOWN_BIAS, ExpertMatrices, ExpertSite, QuantizeBlocks
from drupe_onnx import Expression, ExternalTensor, Files, constant_of, ir
from drupe_quant_gptq.calibration import Rows
from drupe_quant_gptq.hessian import TILE, Hessian
from drupe_quant_gptq.matrix_solver import Solver
from drupe_quant_gptq.routed_rows import RoutedRows

PRIOR = float(os.environ.get("TAU", 0.25))
"""For how many rows the mean over all rows counts, as a share of the matrix's columns."""
SAMPLE = 512
"""How many of all rows stand for all where an expert's own activations are needed."""
UP_BIAS = DOWN_BIAS - 2
WPOW = float(os.environ.get("WPOW", 1))


@dataclass(frozen=True)
class _One:
    """One expert's matrix."""

    name: str
    rows: Expression
    dtype: ir.DataType


class _Summed:
    """The Hessian of one expert: of weighted rows that come a few at a time."""

    def __init__(self, features: int, threads: int) -> None:
        self._hessian = Hessian(features, threads)
        self._waiting: list[Rows] = []
        self._count = 0

    def add(self, rows: Rows) -> None:
        self._waiting.append(rows)
        self._count += len(rows)
        if self._count >= TILE:
            self._flush()

    def whole(self) -> Rows:
        self._flush()
        return self._hessian.whole()

    def _flush(self) -> None:
        if self._waiting:
            self._hessian.add(np.concatenate(self._waiting))
        self._waiting, self._count = [], 0


class ExpertSolver:
    """Solves the experts of one node, as many at a time as the memory budget allows.

    activation: what the node makes of its first product.
    """

    def __init__(
        self, site: ExpertSite, scheme: Scheme, activation: Activation, damping: float, solver: Solver
    ) -> None:
        self._site, self._scheme, self._activation = site, scheme, activation
        self._damping, self._solver = damping, solver
        self._context: Context = solver.context

    def solve(self, rows: RoutedRows) -> list[list[ExternalTensor]]:
        """The parts of `up` and `down`, as in `QuantizeBlocks`; none for an identity. Raises as `Solver.solve`."""
        with threadpool_limits(1, "blas"):
            self._rows = rows
            self._sample = rows.sample(SAMPLE)
            self._all = self._mean_of_all()
            self._up, self._down = (self._places(each) for each in (self._site.up, self._site.down))
            for experts in self._groups():
                self._solve(experts)
        return [self._up, self._down]

    def _solve(self, experts: Sequence[int]) -> None:
        raised = {expert: self._solved_up(expert, hessian) for expert, hessian in self._hessians_up(experts)}
        if self._site.down.is_identity:
            return
        hessians = {expert: self._summed(self._site.down.columns) for expert in experts}

        def add(expert: int, rows: Rows, weights: Rows) -> None:
            hessians[expert].add(self._lowered(expert, rows, raised[expert]) * weights**WPOW)

        self._rows.of(experts, add)
        for expert in experts:
            every = self._lowered(expert, self._sample, raised.pop(expert))
            factor = self._factor(hessians.pop(expert).whole(), every.T @ every / max(1, len(every)), expert)
            self._fill(self._down, self._site.down, expert, factor)

    def _hessians_up(self, experts: Sequence[int]) -> Iterator[tuple[int, Rows | None]]:
        """Each expert's Hessian of what it reads; None where `up` is an identity."""
        if self._site.up.is_identity:
            yield from ((expert, None) for expert in experts)
            return
        hessians = {expert: self._summed(self._site.up.columns) for expert in experts}
        self._rows.of(experts, lambda expert, rows, weights: hessians[expert].add(rows * weights**WPOW))
        for expert in experts:
            yield expert, hessians.pop(expert).whole()

    def _solved_up(self, expert: int, hessian: Rows | None) -> Rows:
        """Solve an expert's first matrix. Returns the values that it has then, [N, K]."""
        up = self._site.up
        count = up.rows.shape[0] // up.experts
        with Files() as files:
            if hessian is None:
                return up.apart[expert].rows(0, count, files)
            self._fill(self._up, up, expert, self._factor(hessian, self._all, expert))
            held = [part.rows(expert * count, (expert + 1) * count, files) for part in self._up]
            held += [None] * (4 - len(held))
            return dequantize_rows(Quantized(*held), self._scheme, up.columns)

    def _lowered(self, expert: int, rows: Rows, raised: Rows) -> Rows:
        """What the second matrix of an expert reads. raised: the first matrix."""
        inner = rows @ raised.T
        node = self._site.node
        bias = constant_of(node.inputs[UP_BIAS]) if len(node.inputs) > UP_BIAS else None
        if bias is not None:
            with Files() as files:
                inner += bias.rows(expert, expert + 1, files)[0]
        return self._activation(inner)

    def _factor(self, hessian: Rows, mean: Rows, expert: int) -> GptqFactor:
        """The factor for an expert's own Hessian and the mean over all rows."""
        hessian += mean * np.float32(PRIOR * len(mean) * self._rows.mean_square_weight(expert) ** WPOW)
        return gptq_factor(hessian, self._damping, self._context.threads)

    def _mean_of_all(self) -> Rows:
        """The mean of x x^T over all rows that any expert could read; nothing where `up` is an identity."""
        if self._site.up.is_identity:
            return np.zeros((0, 0), np.float32)
        hessian = Hessian(self._site.up.columns, self._context.threads)
        self._rows.each(hessian.add)
        return hessian.whole() / np.float32(max(1, self._rows.total))

    def _summed(self, features: int) -> _Summed:
        return _Summed(features, self._context.threads)

    def _places(self, matrices: ExpertMatrices) -> list[ExternalTensor]:
        if matrices.is_identity:
            return []
        with disk_errors(self._solver.path):
            return self._solver.places(QuantizeBlocks(matrices.rows, self._scheme, self._site.dtype).outputs)

    def _fill(
        self, parts: Sequence[ExternalTensor], matrices: ExpertMatrices, expert: int, factor: GptqFactor
    ) -> None:
        rows = matrices.apart[expert]
        one = _One(f"{matrices.weight.name}, expert {expert}", rows, self._site.dtype)
        with disk_errors(self._solver.path):
            self._solver.fill(parts, one, self._scheme, factor, expert * rows.shape[0])

    def _groups(self) -> Iterator[range]:
        """Ranges of experts whose Hessians and values fit into the memory budget."""
        (n, k), (_, width) = self._site.up.rows.shape, self._site.down.rows.shape
        n //= self._site.up.experts
        each = 4 * max(k * k + 2 * TILE * k, n * k + width * width + 2 * TILE * width)
        size = max(1, self._context.memory_budget // each)
        for first in range(0, self._site.up.experts, size):
            yield range(first, min(first + size, self._site.up.experts))
