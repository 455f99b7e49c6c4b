"""Replacing the weights of nodes, also where other nodes share them."""

from __future__ import annotations

from drupe_nbits import Site, replace_rows
from drupe_onnx import Expression, Tape, Transpose, as_type, ir, shared_initializer


def put_rows(graph: ir.Graph, rows: list[tuple[Site, Expression]]) -> None:
    """Give each site other rows [N, K].

    Sites that share a weight keep sharing it if they get equal rows; otherwise each gets its own weight.
    """
    users: dict[int, list[tuple[Site, Expression]]] = {}
    for site, matrix in rows:
        users.setdefault(id(site.weight), []).append((site, matrix))
    for group in users.values():
        site, matrix = group[0]
        if _uses(site.weight) == len(group) and all(other == matrix for _, other in group):
            replace_rows(site, matrix)
        else:
            for site, matrix in group:
                _give_own(graph, site, matrix)


def put_vector(graph: ir.Graph, node: ir.Node, place: int, vector: Expression, name: str) -> None:
    """Give a node another vector as an input, kept in the type of the old one; other users of the old one keep it.

    Where there are none, the new one gets the name of the old one, and otherwise `name`.
    """
    old = node.inputs[place]
    assert old is not None and old.dtype is not None
    new = shared_initializer(graph, name, as_type(vector, old.dtype))
    node.replace_input_with(place, new)
    if old.is_initializer() and not old.uses() and not old.is_graph_output():
        freed = old.name
        assert freed is not None
        del graph.initializers[freed]
        new.name = freed


def _uses(weight: ir.Value) -> int:
    """How many nodes use a weight. A Cast is not counted; the nodes that use its result are."""
    return sum(len(use.node.outputs[0].uses()) if use.node.op_type == "Cast" else 1 for use in weight.uses())


def _give_own(graph: ir.Graph, site: Site, rows: Expression) -> None:
    """Give a site a weight that no other site uses, stored in the same type."""
    dtype = site.weight.dtype
    assert dtype is not None
    kept = as_type(rows, dtype)
    name = f"{site.node.name or site.name}/weight"
    value = shared_initializer(graph, name, Transpose(kept) if site.transposed else kept)
    place = 0 if site.is_look_up else 1
    given = site.node.inputs[place]
    cast = given.producer() if given is not None else None
    if cast is not None:
        tape = Tape()
        name = f"{name}/Cast"
        value = tape.node("Cast", [value], name, site.dtype, value.shape, cast.attributes, output=name)
        graph.insert_before(site.node, tape.nodes)
    site.node.replace_input_with(place, value)
