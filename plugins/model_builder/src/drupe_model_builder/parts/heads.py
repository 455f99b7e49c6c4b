"""Heads of another size than the model's: padded with zeros for an operator, and cut again behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe_model_builder.dimensions import BATCH, SEQUENCE

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir


def pad(graph: GraphBuilder, x: ir.Value, name: str, heads: int, size: int, wanted: int, *, halves: bool) -> ir.Value:
    """x [batch, sequence, heads * size] with heads of `wanted` elements: zeros behind each head, or each half."""
    if size == wanted:
        return x
    parts = heads * (2 if halves else 1)
    held, full = heads * size // parts, heads * wanted // parts
    apart = graph.node(
        "Reshape", [x, graph.integers([0, 0, parts, held])], f"{name}/Parts", [BATCH, SEQUENCE, parts, held]
    )
    sizes = graph.integers([0] * 7 + [full - held])
    padded = graph.node("Pad", [apart, sizes], f"{name}/Pad", [BATCH, SEQUENCE, parts, full])
    joined = heads * wanted
    return graph.node("Reshape", [padded, graph.integers([0, 0, joined])], f"{name}/Joined", [BATCH, SEQUENCE, joined])


def cut(graph: GraphBuilder, x: ir.Value, name: str, heads: int, size: int, held: int, *, halves: bool) -> ir.Value:
    """x [batch, sequence, heads * held] without what `pad` has put into its heads of `size` elements."""
    if size == held:
        return x
    parts = heads * (2 if halves else 1)
    wanted, full = heads * size // parts, heads * held // parts
    apart = graph.node(
        "Reshape", [x, graph.integers([0, 0, parts, full])], f"{name}/Parts", [BATCH, SEQUENCE, parts, full]
    )
    bounds = [graph.integers([first]) for first in (0, wanted, 3)]
    kept = graph.node("Slice", [apart, *bounds], f"{name}/Slice", [BATCH, SEQUENCE, parts, wanted])
    joined = heads * size
    return graph.node("Reshape", [kept, graph.integers([0, 0, joined])], f"{name}/Joined", [BATCH, SEQUENCE, joined])
