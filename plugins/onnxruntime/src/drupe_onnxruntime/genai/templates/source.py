"""source: the text of a jinja syntax tree, in the part of jinja that onnxruntime-genai's engine reads as jinja2 does.

All text is written as string literals, and lines end inside tags, because the engine knows neither `trim_blocks` nor
`lstrip_blocks`. Every operation stands in parentheses, because the engine's precedences differ. The engine's parser
searches the whole rest of a template for each token that may come next, so a comment brings the tokens near.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jinja2 import nodes

OPERATORS = {
    "eq": "==", "ne": "!=", "lt": "<", "gt": ">", "lteq": "<=", "gteq": ">=", "in": "in", "notin": "not in",
}  # fmt: skip
CONSTANTS = {True: "true", False: "false", None: "none"}
ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


TOKENS = "{#- true null not if else or and ~ + * == is -#}"


class Unwritable(Exception):
    """The tree has a node that the engine has no form for."""


def source(template: nodes.Template) -> str:
    """The template's text. Raises Unwritable."""
    tags = list(_statements(template.body))
    return "".join(tag + (TOKENS if number % 4 == 3 else "") for number, tag in enumerate(tags))


def _statements(body: Sequence[nodes.Node]) -> Iterator[str]:
    for node in body:
        yield from _statement(node)


def _statement(node: nodes.Node) -> Iterator[str]:
    match node:
        case nodes.Output():
            for part in node.nodes:
                text = literal(part.data) if isinstance(part, nodes.TemplateData) else expression(part)
                yield f"{{{{- {text}\n-}}}}"
        case nodes.If():
            yield _tag(f"if {expression(node.test)}")
            yield from _statements(node.body)
            for branch in node.elif_:
                yield _tag(f"elif {expression(branch.test)}")
                yield from _statements(branch.body)
            yield from _else(node.else_)
            yield _tag("endif")
        case nodes.For():
            condition = f" if {expression(node.test)}" if node.test else ""
            recursive = " recursive" if node.recursive else ""
            yield _tag(f"for {_target(node.target)} in {expression(node.iter)}{condition}{recursive}")
            yield from _statements(node.body)
            yield from _else(node.else_)
            yield _tag("endfor")
        case nodes.Assign():
            yield _tag(f"set {_target(node.target)} = {expression(node.node)}")
        case nodes.AssignBlock(filter=None):
            yield _tag(f"set {_target(node.target)}")
            yield from _statements(node.body)
            yield _tag("endset")
        case nodes.Macro():
            yield _tag(f"macro {node.name}({_parameters(node)})")
            yield from _statements(node.body)
            yield _tag("endmacro")
        case nodes.Break():
            yield _tag("break")
        case nodes.Continue():
            yield _tag("continue")
        case _:
            raise Unwritable(type(node).__name__)


def _tag(text: str) -> str:
    return f"{{%- {text}\n-%}}"


def _else(body: Sequence[nodes.Node]) -> Iterator[str]:
    if body:
        yield _tag("else")
        yield from _statements(body)


def _target(node: nodes.Node) -> str:
    match node:
        case nodes.Name():
            return str(node.name)
        case nodes.NSRef():
            return f"{node.name}.{node.attr}"
        case nodes.Tuple():
            return ", ".join(_target(item) for item in node.items)
    raise Unwritable(type(node).__name__)


def _parameters(macro: nodes.Macro) -> str:
    plain = len(macro.args) - len(macro.defaults)
    names = [str(argument.name) for argument in macro.args]
    given = [f"{name}={expression(value)}" for name, value in zip(names[plain:], macro.defaults, strict=True)]
    return ", ".join(names[:plain] + given)


def expression(node: nodes.Node) -> str:
    """An expression, in parentheses where it consists of several parts. Raises Unwritable."""
    match node:
        case nodes.Const():
            return _constant(node)
        case nodes.Name():
            return str(node.name)
        case nodes.Getattr():
            return f"{_base(node.node)}.{node.attr}"
        case nodes.Getitem():
            return f"{_base(node.node)}[{_index(node.arg)}]"
        case nodes.Call():
            return f"{_base(node.node)}({_arguments(node)})"
        case nodes.Filter(node=nodes.Node() as filtered):
            return f"({_filtered(filtered)} | {node.name}{_in_parentheses(node)})"
        case nodes.Test():
            return f"({expression(node.node)} is {node.name}{_in_parentheses(node)})"
        case nodes.Not():
            return f"(not {expression(node.node)})"
        case nodes.Neg() | nodes.Pos():
            return f"({node.operator}{expression(node.node)})"
        case nodes.And() | nodes.Or() | nodes.BinExpr():
            return f"({expression(node.left)} {node.operator} {expression(node.right)})"
        case nodes.Concat():
            return f"({' ~ '.join(expression(part) for part in node.nodes)})"
        case nodes.Compare(ops=[operand]):
            return f"({expression(node.expr)} {OPERATORS[operand.op]} {expression(operand.expr)})"
        case nodes.CondExpr():
            otherwise = f" else {expression(node.expr2)}" if node.expr2 else ""
            return f"({expression(node.expr1)} if {expression(node.test)}{otherwise})"
        case nodes.List() | nodes.Tuple():
            return f"[{', '.join(expression(item) for item in node.items)}]"
        case nodes.Dict():
            pairs = (f"{expression(pair.key)}: {expression(pair.value)}" for pair in node.items)
            return f"{{{', '.join(pairs)}}}"
    raise Unwritable(type(node).__name__)


def _filtered(node: nodes.Node) -> str:
    """What a filter is applied to: another filter needs no parentheses."""
    text = expression(node)
    return text[1:-1] if isinstance(node, nodes.Filter) else text


def _base(node: nodes.Node) -> str:
    """What an attribute, an index or a call belongs to."""
    text = expression(node)
    chains = isinstance(node, nodes.Name | nodes.Getattr | nodes.Getitem)
    method = isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr)
    return text if chains or method or text.startswith("(") else f"({text})"


def _index(node: nodes.Node) -> str:
    if not isinstance(node, nodes.Slice):
        return expression(node)
    parts = [expression(part) if part else "" for part in (node.start, node.stop)]
    return ":".join(parts + ([expression(node.step)] if node.step else []))


def _arguments(node: nodes.Call | nodes.Filter | nodes.Test) -> str:
    if node.dyn_args or node.dyn_kwargs:
        raise Unwritable("arguments with stars")
    named = [f"{pair.key}={expression(pair.value)}" for pair in node.kwargs]
    return ", ".join([*(expression(each) for each in node.args), *named])


def _in_parentheses(node: nodes.Filter | nodes.Test) -> str:
    inside = _arguments(node)
    return f"({inside})" if inside else ""


def _constant(node: nodes.Const) -> str:
    value = node.value
    if isinstance(value, str):
        return literal(value)
    if value is None or isinstance(value, bool):
        return CONSTANTS[value]
    return repr(value)


def literal(text: str) -> str:
    """A string literal. Escapes are few, because the engine knows few."""
    return f"'{text.translate(ESCAPES)}'"
