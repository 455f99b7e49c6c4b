"""Weights: the float matrices of a sub-graph, taken out of it and made when they are needed.

A CPU reads a matrix in place, so the matrix is passed as an input. As a constant of the graph it would be written to
disk, read again, and copied to be packed: eight more bytes for each weight, and most of the time of a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError, Record
from drupe_decoding import TOKENS
from drupe_onnx import MICROSOFT, Access, Expression, Files, Transpose, constant_of, expression_of, ir, remove_unused

FLOAT_PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Gemm"})
EXPERTS, EXPERT_PLACES = "MoE", (2, 4, 6)
"""The operator that runs experts in floating point, and the places of its matrices."""
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_BAND = 4 << 20  # bytes of a matrix that a thread makes at a time


class LookUp(Record):
    """A table of which a run gets only the rows of its tokens, and for each token the place of its row.

    table, places: inputs of the sub-graph.
    """

    table: str
    places: str
    rows: Expression

    def inputs(self, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The inputs of a run with these tokens. Raises ModelError for a token that the table has no row for."""
        tokens = given[TOKENS]
        named, places = np.unique(tokens, return_inverse=True)
        if named[-1] >= self.rows.shape[0]:
            raise ModelError(
                f"the tokenizer gives token {named[-1]}, but '{self.table}' has only {self.rows.shape[0]} rows",
                cure="replace the tokenizer by the one that belongs to the model",
            )
        table = np.empty((len(named), *self.rows.shape[1:]), self.rows.dtype.numpy())
        with Files() as files:
            for place, token in enumerate(named.tolist()):
                table[place] = self.rows.rows(token, token + 1, files)[0]
        return {self.table: table, self.places: places.reshape(tokens.shape).astype(np.int64)}


class Weights(Record):
    """What was taken out of a sub-graph: matrices by the name of the input that replaces each, and look-ups."""

    matrices: Mapping[str, Expression]
    look_ups: tuple[LookUp, ...]

    def made(self, threads: int) -> dict[str, NDArray[Any]]:
        """The matrices."""
        return {name: made(each, threads) for name, each in self.matrices.items()}


def take_out(part: ir.Model) -> Weights:
    """Turn the float matrices that a graph multiplies with, and the tables that it looks tokens up in, into inputs."""
    matrices = {value.name or "": matrix for value, matrix in _matrices(part.graph)}
    weights = Weights(matrices, tuple(_look_ups(part.graph)))
    remove_unused(part)  # casts of weights that are inputs now, and the weights themselves
    return weights


def take_matrix_out(node: ir.Node, graph: ir.Graph) -> tuple[ir.Value, Expression] | None:
    """Turn the float matrix that a product multiplies with into an input; None where the product has none.

    A matrix without elements, as an adapter has that is not active, stays. A transposed matrix is passed untransposed,
    and the product transposes it.
    """
    matrix = constant_of(node.inputs[1])
    if matrix is None or matrix.dtype not in _FLOATS or len(matrix.shape) != 2 or 0 in matrix.shape:
        return None
    value = node.inputs[1]
    assert value is not None
    alone = len(value.uses()) == 1
    if alone and node.op_type == "MatMul" and isinstance(matrix, Transpose) and matrix.dtype == ir.DataType.FLOAT:
        _let_transpose(node, graph)
        matrix = matrix.source
    return _made_input(value, matrix, graph), matrix


def _matrices(graph: ir.Graph) -> Iterator[tuple[ir.Value, Expression]]:
    for node in list(graph):
        if node.op_type in FLOAT_PRODUCTS and (taken := take_matrix_out(node, graph)) is not None:
            yield taken
        if (node.domain, node.op_type) == (MICROSOFT, EXPERTS):
            yield from _of_experts(node, graph)


def _of_experts(node: ir.Node, graph: ir.Graph) -> Iterator[tuple[ir.Value, Expression]]:
    """The matrices of all experts, [experts, N, K]."""
    for place in EXPERT_PLACES:
        value = node.inputs[place] if len(node.inputs) > place else None
        matrices = constant_of(value)
        if value is not None and matrices is not None and matrices.dtype in _FLOATS and len(matrices.shape) == 3:
            yield _made_input(value, matrices, graph), matrices


def _let_transpose(node: ir.Node, graph: ir.Graph) -> None:
    node.op_type, node.domain = "FusedMatMul", MICROSOFT
    node.attributes["transB"] = ir.AttrInt64("transB", 1)
    graph.opset_imports.setdefault(MICROSOFT, 1)


def _made_input(value: ir.Value, matrix: Expression, graph: ir.Graph) -> ir.Value:
    """An input of the graph that replaces a constant and has its name."""
    given = ir.val(value.name, matrix.dtype, matrix.shape)
    value.replace_all_uses_with(given)
    if value.is_initializer():
        del graph.initializers[value.name or ""]
    graph.inputs.append(given)
    return given


def _look_ups(graph: ir.Graph) -> Iterator[LookUp]:
    for node in list(graph):
        if node.op_type != "Gather":
            continue
        table, tokens = node.inputs[:2]
        rows = expression_of(table) if table is not None and table.is_initializer() else None
        if table is None or rows is None or tokens is None or tokens.name != TOKENS:
            continue
        axis = node.attributes.get("axis")
        whole_rows = (axis is None or axis.as_int() == 0) and len(rows.shape) == 2 and rows.access == Access.ROWS
        if whole_rows and rows.dtype in _FLOATS and len(table.uses()) == 1:
            places = ir.val(f"{table.name}/places", ir.DataType.INT64, tokens.shape)
            graph.inputs.append(places)
            node.replace_input_with(1, places)
            _made_input(table, rows, graph).shape = ir.Shape([None, rows.shape[1]])
            yield LookUp(table.name or "", places.name or "", rows)


def made(matrix: Expression, threads: int) -> NDArray[Any]:
    """A matrix, or one for each expert, made in bands by several threads."""
    if matrix.access == Access.WHOLE:
        with Files() as files:
            return matrix.value(files)
    whole: NDArray[Any] = np.empty(matrix.shape, matrix.dtype.numpy())
    by_rows = matrix.access == Access.ROWS
    count, size = (matrix.shape[0], matrix.row_size) if by_rows else matrix.shape[::-1]
    step = max(1, _BAND // max(1, size * whole.itemsize))

    def make(start: int) -> None:
        stop = min(start + step, count)
        if by_rows:
            whole[start:stop] = matrix.rows(start, stop, files)
        else:
            whole[:, start:stop] = matrix.columns(start, stop, files)
        files.recycle()

    with Files(reuse=True) as files, ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(make, range(0, count, step)))
    return whole
