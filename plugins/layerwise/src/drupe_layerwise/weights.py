"""Weights: the float matrices of a sub-graph, taken out of it and made when they are needed.

A processor reads a matrix where it lies, so it is given with the activations. As a constant of the graph it would be
written to disk, read again, and copied to be packed: eight more bytes a weight, and most of the time of a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError
from drupe_layerwise.segments import INPUT_IDS
from drupe_onnx import Access, Cast, Expression, Files, Transpose, expression_of, ir

FLOAT_PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Gemm"})
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_BAND = 4 << 20  # bytes of a matrix that a thread makes in one go


@dataclass(frozen=True)
class LookUp:
    """A table of which a run is given the rows that its tokens name, and the tokens' places among those.

    table, places: inputs of the sub-graph.
    """

    table: str
    places: str
    rows: Expression

    def inputs(self, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What a run with these tokens takes. Raises ModelError for one that the table has no row for."""
        tokens = given[INPUT_IDS]
        named, places = np.unique(tokens, return_inverse=True)
        if named[-1] >= self.rows.shape[0]:
            raise ModelError(
                f"the tokenizer gives token {named[-1]}, and '{self.table}' has {self.rows.shape[0]} rows",
                cure="put the tokenizer that belongs to the model beside it",
            )
        table = np.empty((len(named), *self.rows.shape[1:]), self.rows.dtype.numpy())
        with Files() as files:
            for place, token in enumerate(named.tolist()):
                table[place] = self.rows.rows(token, token + 1, files)[0]
        return {self.table: table, self.places: places.reshape(tokens.shape).astype(np.int64)}


@dataclass(frozen=True)
class Weights:
    """What was taken out of a sub-graph: matrices by the name of the input that is there instead, and look-ups."""

    matrices: Mapping[str, Expression]
    look_ups: tuple[LookUp, ...]

    def made(self, threads: int) -> dict[str, NDArray[Any]]:
        """The matrices."""
        return {name: made(each, threads) for name, each in self.matrices.items()}


def take_out(graph: ir.Graph) -> Weights:
    """Make inputs of the float matrices that a graph multiplies with, and of the tables that it looks tokens up in."""
    matrices = {value.name or "": matrix for value, matrix in _matrices(graph)}
    return Weights(matrices, tuple(_look_ups(graph)))


def take_matrix_out(node: ir.Node, graph: ir.Graph) -> tuple[ir.Value, Expression] | None:
    """Make an input of the float matrix that a product multiplies with; None where it has none.

    What was made a transpose of a matrix comes as the matrix, which the product transposes by itself.
    """
    matrix = matrix_of(node)
    if matrix is None or matrix.dtype not in _FLOATS or len(matrix.shape) != 2:
        return None
    value = node.inputs[1]
    assert value is not None
    alone = len(value.uses()) == 1
    if alone and node.op_type == "MatMul" and isinstance(matrix, Transpose) and matrix.dtype == ir.DataType.FLOAT:
        _let_transpose(node, graph)
        matrix = matrix.source
    return _made_input(value, matrix, graph), matrix


def matrix_of(node: ir.Node) -> Expression | None:
    """The constant matrix that a product multiplies with, also where it is cast first."""
    value = node.inputs[1]
    if value is None or value.is_initializer():
        return None if value is None else expression_of(value)
    cast = value.producer()
    if cast is None or cast.op_type != "Cast":
        return None
    stored = cast.inputs[0]
    source = expression_of(stored) if stored is not None and stored.is_initializer() else None
    return source and Cast(source, ir.DataType(cast.attributes["to"].as_int()))


def _matrices(graph: ir.Graph) -> Iterator[tuple[ir.Value, Expression]]:
    for node in list(graph):
        if node.op_type in FLOAT_PRODUCTS and (taken := take_matrix_out(node, graph)) is not None:
            yield taken


def _let_transpose(node: ir.Node, graph: ir.Graph) -> None:
    node.op_type, node.domain = "FusedMatMul", "com.microsoft"
    node.attributes["transB"] = ir.AttrInt64("transB", 1)
    graph.opset_imports.setdefault("com.microsoft", 1)


def _made_input(value: ir.Value, matrix: Expression, graph: ir.Graph) -> ir.Value:
    """An input of the graph that stands for a constant."""
    kind, shape = ir.TensorType(matrix.dtype), ir.Shape(matrix.shape)
    cast = value.producer()
    if cast is None:
        del graph.initializers[value.name or ""]
        value.const_value, value.type, value.shape = None, kind, shape
        graph.inputs.append(value)
        return value
    given = ir.Value(name=value.name, type=kind, shape=shape)
    value.replace_all_uses_with(given)
    stored = cast.inputs[0]
    graph.remove(cast, safe=True)
    if stored is not None and not stored.uses():
        del graph.initializers[stored.name or ""]
    graph.inputs.append(given)
    return given


def _look_ups(graph: ir.Graph) -> Iterator[LookUp]:
    for node in list(graph):
        if node.op_type != "Gather":
            continue
        table, tokens = node.inputs[:2]
        rows = expression_of(table) if table is not None and table.is_initializer() else None
        if table is None or rows is None or tokens is None or tokens.name != INPUT_IDS:
            continue
        axis = node.attributes.get("axis")
        whole_rows = (axis is None or axis.as_int() == 0) and len(rows.shape) == 2 and rows.access == Access.ROWS
        if whole_rows and rows.dtype in _FLOATS and len(table.uses()) == 1:
            places = ir.Value(name=f"{table.name}/places", type=ir.TensorType(ir.DataType.INT64), shape=tokens.shape)
            graph.inputs.append(places)
            node.replace_input_with(1, places)
            _made_input(table, rows, graph)
            table.shape = ir.Shape([None, rows.shape[1]])
            yield LookUp(table.name or "", places.name or "", rows)


def made(matrix: Expression, threads: int) -> NDArray[Any]:
    """A matrix, in bands that threads make side by side."""
    if matrix.access == Access.WHOLE:
        with Files() as files:
            return matrix.value(files)
    whole: NDArray[Any] = np.empty(matrix.shape, matrix.dtype.numpy())
    by_rows = matrix.access == Access.ROWS
    count, size = matrix.shape if by_rows else matrix.shape[::-1]
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
