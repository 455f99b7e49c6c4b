"""rewriting: a chat template in words that onnxruntime-genai's template engine reads as jinja2 does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from jinja2 import nodes

from drupe_onnxruntime.genai.templates.engine import KNOWN_TOKENS
from drupe_onnxruntime.genai.templates.rules import parsed, rewritten
from drupe_onnxruntime.genai.templates.scopes import UNDEFINED, Renaming
from drupe_onnxruntime.genai.templates.selections import selection
from drupe_onnxruntime.genai.templates.source import Unwritable, source
from drupe_tokenization import environment

TOOLS_AS_GIVEN = "{# tool.function: onnxruntime-genai flattens tools for templates without these words #}"


def rewritten_template(template: str, tokens: Mapping[str, str], thorough: bool) -> str | None:
    """A template that means the same in jinja2; None where it has something that the engine has no form for.

    tokens: the model's special tokens by name. thorough: also rewrite what is rarely needed and takes room.
    """
    renaming = Renaming()
    try:
        tree = renaming.template(environment().parse(template))
        text = source(_Rewriter(renaming, tokens, thorough).template(tree))
    except (Unwritable, RecursionError):
        return None
    return f"{TOOLS_AS_GIVEN}\n{text}" if "tools" in template else text


class _Rewriter:
    """Rewrites the statements of one template, and hands their expressions to the rules."""

    def __init__(self, renaming: Renaming, tokens: Mapping[str, str], thorough: bool) -> None:
        self._renaming = renaming
        self._tokens = tokens
        self._thorough = thorough
        self._before: list[nodes.Node] = []
        """Statements that have to stand before the one that is being rewritten."""

    def template(self, tree: nodes.Template) -> nodes.Template:
        tree.body = self._body(tree.body)
        return tree

    def _body(self, body: Sequence[nodes.Node]) -> list[nodes.Node]:
        outer, self._before = self._before, []
        made: list[nodes.Node] = []
        for node in body:
            statements = list(self._statement(node))
            made += self._before + statements
            self._before = []
        self._before = outer
        return made

    def _statement(self, node: nodes.Node) -> Iterator[nodes.Node]:
        match node:
            case nodes.Output():
                node.nodes = [
                    part if isinstance(part, nodes.TemplateData) else self._shown(part) for part in node.nodes
                ]
            case nodes.If():
                node.test = self._expression(node.test, truth=True)
                for branch in node.elif_:
                    branch.test = self._expression(branch.test, truth=True)
                    branch.body = self._body(branch.body)
                node.body, node.else_ = self._body(node.body), self._body(node.else_)
            case nodes.For():
                self._for(node)
            case nodes.Assign():
                node.node = self._expression(node.node)
            case nodes.Macro():
                node.defaults = [self._expression(value) for value in node.defaults]
                node.body = self._body(node.body)
            case nodes.AssignBlock():
                yield from self._assigned_block(node)
                return
            case nodes.FilterBlock():
                name = nodes.Name(self._renaming.fresh("text"), "store")
                yield nodes.AssignBlock(name, None, self._body(node.body))
                text = _filter_of(node.filter, nodes.Name(name.name, "load"))
                yield nodes.Output([self._expression(text)])
                return
        yield node

    def _shown(self, node: nodes.Expr) -> nodes.Expr:
        """An expression whose text is shown: the engine shows nothing for none."""
        made = self._expression(node)
        if self._thorough and isinstance(node, nodes.Name | nodes.Getattr | nodes.Getitem):
            return parsed("'None' if A is none else A", A=made)
        return made

    def _for(self, node: nodes.For) -> None:
        """A loop over selected items tests each item itself."""
        while isinstance(node.target, nodes.Name) and node.test is None:
            found = selection(node.iter, nodes.Name(node.target.name, "load"))
            if found is None or found[1] is None:
                break
            node.iter, node.test, _ = found
        node.iter = self._expression(node.iter)
        if node.test:
            before = len(self._before)
            node.test = self._expression(node.test, truth=True)
            if len(self._before) > before:
                raise Unwritable("a selection inside the condition of a loop")
        node.body, node.else_ = self._body(node.body), self._body(node.else_)

    def _assigned_block(self, node: nodes.AssignBlock) -> Iterator[nodes.Node]:
        node.body = self._body(node.body)
        filtering, node.filter = node.filter, None
        yield node
        if filtering and isinstance(node.target, nodes.Name):
            value = _filter_of(filtering, nodes.Name(node.target.name, "load"))
            yield nodes.Assign(nodes.Name(node.target.name, "store"), self._expression(value))

    def _expression(self, node: nodes.Node, truth: bool = False) -> nodes.Expr:
        """The expression with all its parts rewritten. truth: whether only its truth counts."""
        assert isinstance(node, nodes.Expr)
        if isinstance(node, nodes.Name) and node.ctx == "load":
            node = self._token(node)
        if found := selection(node, nodes.Name("item", "load")):
            return self._selected(*found)
        self._parts(node, truth)
        return rewritten(node, self._thorough, truth)

    def _parts(self, node: nodes.Node, truth: bool = False) -> None:
        """Rewrite the parts of a node in place."""
        for name in node.fields:
            value = getattr(node, name)
            inside = _truth_inside(node, name, truth)
            if isinstance(value, nodes.Node):
                setattr(node, name, self._part(value, inside))
            elif isinstance(value, list):
                setattr(node, name, [self._part(part, inside) for part in value])

    def _part(self, node: object, truth: bool) -> object:
        if isinstance(node, nodes.Expr):
            return self._expression(node, truth)
        if isinstance(node, nodes.Node):
            self._parts(node)
        return node

    def _token(self, node: nodes.Name) -> nodes.Expr:
        """The text of a special token that the engine does not know; a name without a text for one that has none."""
        if node.name in KNOWN_TOKENS:
            return node if node.name in self._tokens else nodes.Name(UNDEFINED, "load")
        return nodes.Const(self._tokens[node.name]) if node.name in self._tokens else node

    def _selected(self, items: nodes.Expr, test: nodes.Expr | None, made: nodes.Expr) -> nodes.Expr:
        """The selected items, gathered by a loop that stands before the statement."""
        name = self._renaming.fresh("item")
        gathered = self._renaming.fresh("gathered")
        made, test = _with_item(made, name), test and _with_item(test, name)
        items = self._expression(items)
        outer, self._before = self._before, []
        one = self._expression(made)
        condition = test and self._expression(test, truth=True)
        if self._before:
            raise Unwritable("a selection inside a selection")
        self._before = outer
        self._before.append(nodes.Assign(nodes.Name(gathered, "store"), parsed("namespace(items=[])")))
        more = nodes.Assign(nodes.NSRef(gathered, "items"), parsed("A + [B]", A=parsed(f"{gathered}['items']"), B=one))
        target = nodes.Name(name, "store")
        self._before.append(nodes.For(target, items, [more], [], condition, False))
        return parsed(f"{gathered}['items']")


def _with_item(node: nodes.Expr, name: str) -> nodes.Expr:
    """The expression about `item` with another name for it."""
    for each in [node, *node.find_all(nodes.Name)]:
        if isinstance(each, nodes.Name) and each.name == "item":
            each.name = name
    return node


def _filter_of(filtering: nodes.Filter, value: nodes.Expr) -> nodes.Filter:
    """The filters of a block, applied to a value."""
    inner = filtering
    while isinstance(inner.node, nodes.Filter):
        inner = inner.node
    inner.node = value
    return filtering


def _truth_inside(node: nodes.Node, name: str, truth: bool) -> bool:
    """Whether of this part of an expression only the truth counts."""
    match node:
        case nodes.And() | nodes.Or():
            return truth
        case nodes.CondExpr():
            return truth or name == "test"
        case nodes.Not():
            return True
    return False
