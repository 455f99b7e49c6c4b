"""Solving experts by GPTQ: each expert's matrices on the rows that the router sends to it.

An error in a row counts by the square of the expert's weight in it. Beside its own rows, each expert gets the mean over
all rows, as if it had run so many of them (`PRIOR`): without it, an expert that few rows reach would have a Hessian
that knows nothing of most directions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from drupe.api import Record, replace
from drupe_blockquant import GptqFactor, Quantized, Scheme, dequantize_rows, gptq_factor
from drupe_files import disk_errors
from drupe_layerwise import Activation, RoutedRows
from drupe_nbits import UP_BIAS, ExpertMatrices, ExpertSite, QuantizeBlocks
from drupe_onnx import Expression, ExternalTensor, Files, constant_of, ir
from drupe_quant_gptq.calibration import Rows
from drupe_quant_gptq.hessian import TILE, Hessian
from drupe_quant_gptq.matrix_solver import Solver

PRIOR = 0.25
"""For how many rows the mean over all rows counts, as a share of the matrix's columns."""
SAMPLE = 512
"""How many rows stand for all, where an expert's own activations of them are needed."""
FLOAT = 4  # bytes
FACTORED = 16
"""Bytes for each element of a Hessian while it is factored."""


class _OfOne(Record):
    """One expert's matrix; see `matrix_solver.Matrix`."""

    name: str
    rows: Expression
    dtype: ir.DataType


class ExpertSolver:
    """Solves the experts of one node, as many at a time as the memory budget allows.

    activation: what the node makes of its first product. rows: what the experts read. solver: writes the parts.
    """

    def __init__(
        self,
        site: ExpertSite,
        scheme: Scheme,
        activation: Activation,
        rows: RoutedRows,
        damping: float,
        solver: Solver,
    ) -> None:
        self._site, self._scheme, self._activation = site, scheme, activation
        self._rows, self._damping, self._solver = rows, damping, solver
        self._threads = solver.context.threads

    def solve(self) -> tuple[list[ExternalTensor], list[ExternalTensor]]:
        """The parts of `up` and of `down`, as in `QuantizeBlocks`; none for an identity. Raises as `Solver.solve`."""
        up, down = (self._places(each) for each in (self._site.up, self._site.down))
        with threadpool_limits(1, "blas"):
            for experts in self._groups():
                raised = self._solved_up(experts, up)
                if down:
                    self._solve_down(experts, down, raised)
        return up, down

    def _solved_up(self, experts: Sequence[int], parts: Sequence[ExternalTensor]) -> dict[int, Rows]:
        """Solve the first matrices of some experts. Returns the values that they have then, [N, K] each."""
        matrices = self._site.up
        if not parts:
            return {expert: self._stored(matrices.apart[expert]) for expert in experts}
        hessians = {expert: self._summed(matrices.columns) for expert in experts}
        self._rows.of(experts, lambda expert, rows, weights: hessians[expert].add(rows, weights))
        mean = self._mean_of_all
        raised: dict[int, Rows] = {}

        def solve(expert: int, threads: int) -> None:
            factor = self._factor(hessians.pop(expert).whole(), mean, expert, threads)
            self._fill(parts, matrices, expert, factor, threads)
            raised[expert] = self._solved(parts, matrices, expert)

        self._each(experts, matrices.columns, solve)
        return raised

    def _solve_down(self, experts: Sequence[int], parts: Sequence[ExternalTensor], raised: dict[int, Rows]) -> None:
        """Solve the second matrices of some experts. raised: the first ones; each is freed when it has been used."""
        columns, sample = self._site.down.columns, self._sample
        hessians = {
            expert: self._summed(columns, functools.partial(self._activated, expert, raised=raised[expert]))
            for expert in experts
        }
        self._rows.of(experts, lambda expert, rows, weights: hessians[expert].add(rows, weights))

        def solve(expert: int, threads: int) -> None:
            hessian = hessians.pop(expert).whole()
            every = self._activated(expert, sample, raised.pop(expert))
            mean = every.T @ every / np.float32(len(every))
            self._fill(parts, self._site.down, expert, self._factor(hessian, mean, expert, threads), threads)

        self._each(experts, columns, solve)

    def _each(self, experts: Sequence[int], columns: int, solve: Callable[[int, int], None]) -> None:
        """Call `solve` for each expert, with how many threads it may use. Several experts are solved at a time.

        As many as there are threads, and as factors of so many columns fit into half of the memory budget.
        """
        fitting = self._solver.context.memory_budget // (2 * FACTORED * columns * columns)
        at_once = max(1, min(self._threads, fitting, len(experts)))
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda expert: solve(expert, self._threads // at_once), experts))

    def _activated(self, expert: int, rows: Rows, raised: Rows) -> Rows:
        """What the second matrix of an expert reads. raised: the first matrix."""
        inner, inputs = rows @ raised.T, self._site.node.inputs
        bias = constant_of(inputs[UP_BIAS]) if len(inputs) > UP_BIAS else None
        if bias is not None:
            with Files() as files:
                inner += bias.rows(expert, expert + 1, files)[0]
        return self._activation(inner)

    def _factor(self, hessian: Rows, mean: Rows, expert: int, threads: int) -> GptqFactor:
        """The factor for an expert's own Hessian and the mean over all rows."""
        weights = self._rows.weights(expert)
        usual = np.square(weights, dtype=np.float64).mean() if len(weights) else 1.0
        hessian += mean * np.float32(PRIOR * len(mean) * usual)
        return gptq_factor(hessian, self._damping, threads)

    @functools.cached_property
    def _mean_of_all(self) -> Rows:
        """The mean of x x^T over all rows."""
        hessian = Hessian(self._site.up.columns, self._threads)
        self._rows.all(hessian.add)
        return hessian.whole() / np.float32(self._rows.total)

    @functools.cached_property
    def _sample(self) -> Rows:
        return self._rows.sample(SAMPLE)

    def _summed(self, features: int, made: Activation = lambda rows: rows) -> _Summed:
        return _Summed(features, self._threads, made)

    def _places(self, matrices: ExpertMatrices) -> list[ExternalTensor]:
        if matrices.is_identity:
            return []
        with disk_errors(self._solver.path):
            return self._solver.places(QuantizeBlocks(matrices.rows, self._scheme, self._site.dtype).outputs)

    def _fill(
        self,
        parts: Sequence[ExternalTensor],
        matrices: ExpertMatrices,
        expert: int,
        factor: GptqFactor,
        threads: int,
    ) -> None:
        rows = matrices.apart[expert]
        solver = replace(self._solver, context=replace(self._solver.context, threads=threads))
        one = _OfOne(f"{matrices.weight.name}, expert {expert}", rows, self._site.dtype)
        with disk_errors(self._solver.path):
            solver.fill(parts, one, self._scheme, factor, expert * rows.shape[0])

    def _solved(self, parts: Sequence[ExternalTensor], matrices: ExpertMatrices, expert: int) -> Rows:
        """The values of a solved matrix."""
        count = matrices.apart[expert].shape[0]
        with Files() as files:
            held = [part.rows(expert * count, (expert + 1) * count, files) for part in parts]
            packed, scales, *zero_points = held
            quantized = Quantized(packed, scales, zero_points[0] if zero_points else None, None)
            return dequantize_rows(quantized, self._scheme, matrices.columns)

    def _stored(self, matrix: Expression) -> Rows:
        with Files() as files:
            return matrix.value(files).astype(np.float32)

    def _groups(self) -> Iterator[range]:
        """Ranges of experts whose Hessians and values fit into the memory budget."""
        experts, columns, width = self._site.up.experts, self._site.up.columns, self._site.down.columns
        values = self._site.up.rows.size // experts
        summed = (_Summed.size(each, columns) for each in (columns, width))
        each = FLOAT * (values + max(summed))
        size = max(1, self._solver.context.memory_budget // each)
        for first in range(0, experts, size):
            yield range(first, min(first + size, experts))


class _Summed:
    """The Hessian of what is made of rows that come a few at a time. They wait, since products of few rows are slow."""

    def __init__(self, features: int, threads: int, made: Activation) -> None:
        self._hessian, self._made = Hessian(features, threads), made
        self._waiting: list[tuple[Rows, Rows]] = []
        self._count = 0

    @staticmethod
    def size(features: int, columns: int) -> int:
        """How many floats it holds. columns: of the rows."""
        return features * (features + TILE) + TILE * columns

    def add(self, rows: Rows, weights: Rows) -> None:
        """weights [rows, 1]: what is made of each row counts by their squares."""
        self._waiting.append((rows, weights))
        self._count += len(rows)
        if self._count >= TILE:
            self._add_waiting()

    def whole(self) -> Rows:
        """The symmetric matrix [features, features]; no rows may be added to it afterwards."""
        self._add_waiting()
        return self._hessian.whole()

    def _add_waiting(self) -> None:
        if self._waiting:
            rows, weights = map(np.concatenate, zip(*self._waiting, strict=True))
            self._hessian.add(self._made(rows) * weights)
        self._waiting.clear()
        self._count = 0
