"""Products of adapters that are switched at run time, beside a product of the base model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from drupe.api import Record
from drupe_model_builder.dimensions import Dims, dims
from drupe_model_builder.parts.rows import Rows

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir
    from drupe_onnx.switching import AdaptedProduct


class Place(Record):
    """A matrix that adapters may add to. name: the prefix of the nodes. matrix: the matrix's own name."""

    name: str
    matrix: str
    rows: Rows


def switched(graph: GraphBuilder, places: Sequence[Place], name: str, x: ir.Value, out: ir.Value) -> ir.Value:
    """The result of a product plus what the active adapter adds to it; `out` itself where no adapter adds anything.

    places: the matrices of the product, one after the other. name: of the product. Where adapters add to one matrix of
    several, all get inputs: what is added is as wide as the product.
    """
    if not any(each.rows.tensor in graph.adapted for each in places):
        return out
    added = [_added(graph, group[0].name, _product(group), x) for group in _by_tensor(places)]
    total = added[0]
    if len(added) > 1:
        total = graph.node("Concat", added, f"{name}/Adapters", dims(out), axis=-1)
    return graph.node("Add", [out, total], f"{name}/Adapted", dims(out))


def _by_tensor(places: Sequence[Place]) -> list[list[Place]]:
    """Neighbours that are rows of one tensor share the first matrix of an adapter."""
    return [list(group) for _, group in groupby(places, key=lambda each: (each.rows.tensor, each.rows.index))]


def _product(places: Sequence[Place]) -> AdaptedProduct:
    """The product of an adapter for rows of one tensor."""
    from drupe_onnx.switching import AdaptedProduct

    first = places[0].rows
    name = places[0].matrix if len(places) == 1 else first.tensor.removesuffix(".weight")
    height, width = first.shape[-2:]
    own = width if first.transposed else height
    ranges = [each for place in places for each in (place.rows.ranges or (range(own),))]
    return AdaptedProduct(name, first.tensor, (height, width), _joined(ranges, own), first.transposed)


def _joined(ranges: Sequence[range], count: int) -> tuple[tuple[int, int], ...]:
    """The ranges in as few as possible; none where they are all rows in order."""
    found: list[tuple[int, int]] = []
    for each in (piece for every in ranges for piece in _runs(every)):
        if found and found[-1][1] == each.start:
            found[-1] = (found[-1][0], each.stop)
        else:
            found.append((each.start, each.stop))
    return () if found == [(0, count)] else tuple(found)


def _runs(rows: range) -> Sequence[range]:
    """The same rows as ranges without gaps."""
    return [rows] if rows.step == 1 else [range(row, row + 1) for row in rows]


def _added(graph: GraphBuilder, name: str, product: AdaptedProduct, x: ir.Value) -> ir.Value:
    """B(A(x)), with matrices of the rank 0 until an adapter is active. name: the prefix of the nodes."""
    import numpy as np

    from drupe_onnx import Array

    inputs, outputs = product.sizes
    graph.adapted_products[product.name] = product
    kind = graph.dtype.numpy()
    inward = graph.initializer(product.inward, Array(np.zeros((inputs, 0), kind)))
    outward = graph.initializer(product.outward, Array(np.zeros((0, outputs), kind)))
    before: Dims = dims(x)[:-1]
    small = graph.node("MatMul", [x, inward], f"{name}/AdapterA", [*before, f"{product.name}.rank"])
    return graph.node("MatMul", [small, outward], f"{name}/AdapterB", [*before, outputs])
