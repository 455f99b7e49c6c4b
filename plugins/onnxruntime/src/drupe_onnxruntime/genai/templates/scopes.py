"""scopes: gives each variable of a jinja syntax tree a name of its own, so that it needs no scopes to be read right.

onnxruntime-genai's engine keeps one scope for all rounds of a loop, writes loop variables into the scope around the
loop, and has no scope for macros. Its filters are variables, which a template's own variables can hide.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TypeVar

from jinja2 import nodes
from jinja2.nodes import ExtensionAttribute

Part = TypeVar("Part", bound=nodes.Node)

ENGINE_NAMES = frozenset(
    {
        "count", "default", "dictsort", "e", "equalto", "escape", "indent", "int", "items", "join", "joiner", "last",
        "length", "list", "lower", "map", "reject", "rejectattr", "safe", "select", "selectattr", "string", "tojson",
        "trim", "unique",
    }
)  # fmt: skip
"""Variables of the engine that jinja2 does not have: filters."""
UNDEFINED = "undefined_name"
"""A name that is never defined, in no template and in no engine."""


@dataclass
class Scope:
    """What the names of a part of the template are called now."""

    parent: Scope | None = None
    names: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        if name in self.names:
            return self.names[name]
        if self.parent:
            return self.parent.of(name)
        return f"{name}_" if name in ENGINE_NAMES else name


class Renaming:
    """Renames the variables of one template."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._macros: set[str] = set()
        self._taken: set[str] = set()

    def template(self, template: nodes.Template) -> nodes.Template:
        """A renamed copy; blocks that only make a scope are replaced by their content."""
        made = deepcopy(template)
        self._macros = {macro.name for macro in made.find_all(nodes.Macro)}
        self._taken = {name.name for name in made.find_all(nodes.Name)}
        root = Scope()
        root.names = {name: root.of(name) for name in _assigned(made.body)}
        made.body = self._body(made.body, root)
        return made

    def fresh(self, name: str) -> str:
        """A variable that the template does not have."""
        return next(made for number in self._numbers if (made := f"{name}_{number}") not in self._taken)

    def _body(self, body: Sequence[nodes.Node], scope: Scope) -> list[nodes.Node]:
        return [made for node in body for made in self._statement(node, scope)]

    def _statement(self, node: nodes.Node, scope: Scope) -> list[nodes.Node]:
        match node:
            case nodes.For():
                return [self._for(node, scope)]
            case nodes.Macro():
                return [self._macro(node, scope)]
            case nodes.If():
                node.test = self._expression(node.test, scope)
                node.body, node.else_ = self._body(node.body, scope), self._body(node.else_, scope)
                for branch in node.elif_:
                    self._statement(branch, scope)
                return [node]
            case nodes.AssignBlock():
                if node.filter:
                    node.filter = self._expression(node.filter, scope)
                node.body = self._inner(node.body, scope)
                node.target = self._expression(node.target, scope)
                return [node]
            case nodes.FilterBlock():
                node.filter = self._expression(node.filter, scope)
                node.body = self._inner(node.body, scope)
                return [node]
            case nodes.With():
                inner = Scope(scope, {name: self.fresh(name) for target in node.targets for name in _names_in(target)})
                values = [self._expression(value, scope) for value in node.values]
                targets = [self._expression(target, inner) for target in node.targets]
                given: list[nodes.Node] = [nodes.Assign(*pair) for pair in zip(targets, values, strict=True)]
                return given + self._inner(node.body, inner)
            case nodes.CallBlock(call=nodes.Call(node=ExtensionAttribute())):
                return self._inner(node.body, scope)
        return [self._expression(node, scope)]

    def _for(self, node: nodes.For, scope: Scope) -> nodes.For:
        node.iter = self._expression(node.iter, scope)
        node.else_ = self._inner(node.else_, scope)
        targets = _names_in(node.target)
        inner = Scope(scope, {name: self.fresh(name) for name in targets})
        node.target = self._expression(node.target, inner)
        if node.test:
            node.test = self._expression(node.test, inner)
        node.body = self._inner(node.body, inner, known=targets)
        return node

    def _macro(self, node: nodes.Macro, scope: Scope) -> nodes.Macro:
        """The macro with its parameters in loops of one round: each call of the engine then has its own."""
        given = {argument.name: _parameter(node.name, argument.name) for argument in node.args}
        node.name = scope.of(node.name)
        node.defaults = [self._expression(value, scope) for value in node.defaults]
        parameters = [argument.name for argument in node.args]
        missing = len(parameters) - len(node.defaults)
        node.defaults = [*(nodes.Name(UNDEFINED, "load") for _ in range(missing)), *node.defaults]
        node.args = [nodes.Name(given[name], "param") for name in parameters]
        inner = Scope(scope, {name: self.fresh(name) for name in parameters})
        body = self._inner(node.body, inner, known=parameters)
        rounds: list[tuple[str, nodes.Expr]] = [
            (inner.names[name], nodes.Name(given[name], "load")) for name in parameters
        ]
        for name, value in reversed(rounds or [(self.fresh("round"), nodes.Const(0))]):
            body = [nodes.For(nodes.Name(name, "store"), nodes.List([value]), body, [], None, False)]
        node.body = body
        return node

    def _inner(self, body: Sequence[nodes.Node], outer: Scope, known: Sequence[str] = ()) -> list[nodes.Node]:
        """The body as a scope of its own; variables that it assigns begin with the value that they have outside."""
        names = [name for name in _assigned(body) if name not in known]
        inner = Scope(outer, {name: self.fresh(name) for name in names})
        begun: list[nodes.Node] = [
            nodes.Assign(nodes.Name(inner.names[name], "store"), nodes.Name(outer.of(name), "load"))
            for name in names
            if not _assigned_first(body, name)
        ]
        return begun + self._body(body, inner)

    def _expression(self, node: Part, scope: Scope) -> Part:
        """Rename all names in a node that opens no scope, also the parameters of the macros that it calls."""
        for call in [node, *node.find_all(nodes.Call)]:
            if isinstance(call, nodes.Call) and isinstance(call.node, nodes.Name) and call.node.name in self._macros:
                for pair in call.kwargs:
                    pair.key = _parameter(call.node.name, pair.key)
        for name in [node, *node.find_all((nodes.Name, nodes.NSRef))]:
            if isinstance(name, nodes.Name | nodes.NSRef):
                name.name = scope.of(name.name)
        return node


def _parameter(macro: str, name: str) -> str:
    """What the parameter of a macro is called now: the engine has one scope for all macros."""
    return f"{name}_of_{macro}"


def _assigned(body: Sequence[nodes.Node]) -> list[str]:
    """The names that are assigned in this scope, not in those inside it."""
    return list(dict.fromkeys(name for node in body for name in _assigned_by(node)))


def _assigned_by(node: nodes.Node) -> Iterator[str]:
    match node:
        case nodes.Assign() | nodes.AssignBlock():
            yield from _names_in(node.target)
        case nodes.Macro():
            yield node.name
        case nodes.If():
            for inner in (*node.body, *node.elif_, *node.else_):
                yield from _assigned_by(inner)


def _names_in(target: nodes.Node) -> list[str]:
    """The variables of a target; an attribute of a namespace is none."""
    return [name.name for name in [target, *target.find_all(nodes.Name)] if isinstance(name, nodes.Name)]


def _assigned_first(body: Sequence[nodes.Node], name: str) -> bool:
    """Whether the body assigns the name, whatever happens, before it reads it."""
    for node in body:
        reads = any(each.name == name and each.ctx == "load" for each in node.find_all(nodes.Name))
        mentions = reads or name in _assigned_by(node) or any(each.name == name for each in node.find_all(nodes.NSRef))
        match node:
            case nodes.Assign(target=nodes.Name(name=target)) | nodes.AssignBlock(target=nodes.Name(name=target)):
                if target == name:
                    return not reads
            case nodes.Macro(name=target) if target == name:
                return True
        if mentions:
            return False
    return False
