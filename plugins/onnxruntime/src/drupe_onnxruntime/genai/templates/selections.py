"""selections: filters that keep or change the items of a list, which the engine reads as loops only."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import nodes

from drupe_onnxruntime.genai.templates.rules import named_arguments, text_of


def selection(node: nodes.Node, item: nodes.Expr) -> tuple[nodes.Expr, nodes.Expr | None, nodes.Expr] | None:
    """A filter that keeps or changes items: over what, which condition an item meets, and what is made of it.

    None for another node, and for a filter that the engine reads as jinja2 does.
    """
    if not isinstance(node, nodes.Filter) or node.node is None or node.name not in SELECTING:
        return None
    made = SELECTING[node.name](node, item)
    return made and (node.node, *made)


def _select(node: nodes.Filter, item: nodes.Expr) -> tuple[nodes.Expr | None, nodes.Expr] | None:
    return _tested(item, node.args, reject=node.name == "reject"), item


def _select_by_key(node: nodes.Filter, item: nodes.Expr) -> tuple[nodes.Expr | None, nodes.Expr] | None:
    if not node.args or (key := text_of(node.args[0])) is None:
        return None
    return _tested(_by_key(item, key), node.args[1:], reject=node.name == "rejectattr"), item


def _map(node: nodes.Filter, item: nodes.Expr) -> tuple[nodes.Expr | None, nodes.Expr] | None:
    if node.args and (name := text_of(node.args[0])) is not None:
        return None, nodes.Filter(item, name, node.args[1:], node.kwargs, None, None)
    named = named_arguments(node, ())
    key = text_of(named["attribute"]) if set(named) == {"attribute"} else None
    return (None, _by_key(item, key)) if key and "." in key else None


SELECTING = {
    "select": _select, "reject": _select, "selectattr": _select_by_key, "rejectattr": _select_by_key, "map": _map,
}  # fmt: skip


def _by_key(item: nodes.Expr, key: str) -> nodes.Expr:
    for part in key.split("."):
        item = nodes.Getitem(item, nodes.Const(part), "load")
    return item


def _tested(value: nodes.Expr, test: Sequence[nodes.Expr], reject: bool) -> nodes.Expr:
    if test:
        name = text_of(test[0]) or ""
        value = nodes.Test(value, TESTS.get(name, name), list(test[1:]), [], None, None)
    return nodes.Not(value) if reject else value


TESTS = {"==": "eq", "!=": "ne", "<": "lt", ">": "gt", "<=": "le", ">=": "ge"}
