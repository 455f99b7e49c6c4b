"""Tied weights: storing the matrix of the embedding once if it also makes the logits.

Exporters transpose it in the graph for one of its two uses, or write it twice.
"""

from __future__ import annotations

import itertools

from drupe.api import Context
from drupe_nbits import HEAD, Site, find_sites, replace_rows
from drupe_onnx import Expression, Files, OperatorUse, capabilities_of, element_name, ir
from drupe_onnx.editing import MICROSOFT

FUSED = "FusedMatMul"
BAND = 4 << 20
"""How many bytes of each of two matrices are compared at once."""


def find_twins(graph: ir.Graph, context: Context) -> None:
    """Replace a head by the embedding if both have the same values."""
    sites = find_sites(graph)
    tables = [site for site in sites if site.is_look_up]
    for site in (each for each in sites if each.role == HEAD and not each.is_look_up):
        for table in tables:
            if site.rows != table.rows and _alike(site.rows, table.rows, context):
                replace_rows(site, table.rows)
                break


def share_tied(graph: ir.Graph, context: Context) -> None:
    """Let each product with a matrix that is also looked up read the matrix by rows, if the target supports that."""
    sites = find_sites(graph)
    tables = {site.rows: site for site in sites if site.is_look_up}
    for site in sites:
        table = tables.get(site.rows)
        if table is not None and site.node.op_type == "MatMul" and table.weight is not site.weight:
            _share(graph, site, table, context)


def _alike(ours: Expression, theirs: Expression, context: Context) -> bool:
    """Whether two matrices have the same values. The first row is compared first: most matrices differ there."""
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        return False
    step = max(1, BAND // max(1, ours.held_bytes(1)))
    bounds = [0, 1, *range(step, ours.row_count, step), ours.row_count]
    with Files() as files:
        for start, stop in itertools.pairwise(bounds):
            context.stop_if_cancelled()
            if start < stop and ours.rows(start, stop, files).tobytes() != theirs.rows(start, stop, files).tobytes():
                return False
    return True


def _share(graph: ir.Graph, site: Site, table: Site, context: Context) -> None:
    element = element_name(site.dtype)
    use = OperatorUse(MICROSOFT, FUSED, 1, (element, element), (element,), {"transB": 1})
    direct = site.node.inputs[1] is site.weight and table.weight.dtype == site.dtype
    if direct and capabilities_of(context.target).serves(use):
        graph.opset_imports.setdefault(MICROSOFT, 1)
        site.node.op_type, site.node.domain = FUSED, MICROSOFT
        site.node.attributes["transB"] = ir.AttrInt64("transB", 1)
        site.node.replace_input_with(1, table.weight)
