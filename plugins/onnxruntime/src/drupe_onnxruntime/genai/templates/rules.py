"""rules: what onnxruntime-genai's template engine reads wrong or not at all, and how it is written instead.

A rule is a pair of jinja expressions. In the pattern, a capital letter stands for a part: S for a text constant that
is not empty, T for any text constant, N for a whole number constant above zero, V for anything but a list or mapping
that is written out, other letters for any expression. Both sides mean the same in jinja2. The right side uses only what
the engine reads as jinja2 does.
"""

from __future__ import annotations

import functools
import itertools
import string
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TypeVar, cast

from jinja2 import nodes

from drupe.api import Record
from drupe_onnxruntime.genai.templates.scopes import UNDEFINED
from drupe_tokenization import environment

Part = TypeVar("Part", bound=nodes.Node)

ALWAYS_GIVEN = ("messages", "tools", "documents", "add_generation_prompt")
"""Variables that transformers gives to each template; `tools` and `documents` are none where there are none."""
FUNCTIONS = ("raise_exception", "strftime_now", "namespace", "range", "dict")
WORDS = (
    "user", "assistant", "system", "tool", "developer", "function", "model", "human", "bot",
    "string", "number", "integer", "boolean", "array", "object", "null",
)  # fmt: skip
"""Words that templates write in capitals: roles, and the types of JSON."""


def _word_in_upper_case(otherwise: str) -> str:
    table = ", ".join(f"'{word}': '{word.upper()}'" for word in WORDS)
    return f"{{{table}}}[A] if A in {list(WORDS)} else {otherwise}"


def _capitalized(text: str) -> str:
    """A text with a capital at its beginning only, from a table: the engine has no upper case."""
    table = ", ".join(f"'{letter}': '{letter.upper()}'" for letter in string.ascii_lowercase)
    return f"{{{table}}}.get(({text})[:1], ({text})[:1]) + (({text})[1:] | lower)"


def _title(text: str, otherwise: str) -> str:
    """A text with capitals at the beginning of its words, where it is only one word."""
    one_word = " and ".join(f"({text}).split('{mark}') | length == 1" for mark in " -_")
    return f"({_capitalized(text)}) if {one_word} else {otherwise}"


def _letters_in_upper_case(text: str) -> str:
    """Any text in upper case, letter by letter."""
    for letter in string.ascii_lowercase:
        text = f"({text}).split('{letter}') | join('{letter.upper()}')"
    return text


_CONSTANT_IN = "(V is string and V.split(S) | length > 1) or (V is not string and S in V)"
_IN = "(V is string and (A == '' or V.split(A) | length > 1)) or (V is not string and A in V)"

SURE: tuple[tuple[str, str], ...] = (
    # Tests
    ("A is eq(B)", "A == B"),
    ("A is equalto(B)", "A == B"),
    ("A is ne(B)", "A != B"),
    ("A is lt(B)", "A < B"),
    ("A is gt(B)", "A > B"),
    ("A is le(B)", "A <= B"),
    ("A is ge(B)", "A >= B"),
    ("A is in(B)", "A in B"),
    ("A is odd", "A % 2 == 1"),
    ("A is even", "A % 2 == 0"),
    ("A is divisibleby(B)", "A % B == 0"),
    ("A is sequence", "(A is iterable or A is undefined)"),
    ("A is iterable", "(A is iterable or A is undefined)"),
    ("tools is none", "(tools is undefined or tools is none)"),
    ("documents is none", "(documents is undefined or documents is none)"),
    *((f"{name} is defined", "true") for name in (*ALWAYS_GIVEN, *FUNCTIONS)),
    *((f"{name} is undefined", "false") for name in (*ALWAYS_GIVEN, *FUNCTIONS)),
    # Reasoning: transformers gives it under both keys
    ("A.thinking", "A.thinking if A.thinking is defined else A.reasoning_content"),
    ("A['thinking']", "A['thinking'] if A['thinking'] is defined else A['reasoning_content']"),
    ("'thinking' in A", "'thinking' in A or 'reasoning_content' in A"),
    # Text in text
    ("S in V", _CONSTANT_IN),
    ("S not in V", f"not ({_CONSTANT_IN})"),
    ("A in V", _IN),
    ("A not in V", f"not ({_IN})"),
    ("A not in B", "not (A in B)"),
    # Methods of texts
    ("A.replace(S, B)", "A.split(S) | join(B)"),
    ("A.lower()", "A | lower"),
    ("A.count(S)", "A.split(S) | length - 1"),
    ("A.find(S)", "(A.split(S)[0] | length) if A.split(S) | length > 1 else -1"),
    ("T.join(A)", "A | join(T)"),
    ("A.split(S, 1)", "(A.split(S)[:1] + [A.split(S)[1:] | join(S)]) if A.split(S) | length > 1 else [A]"),
    ("A.split(S, maxsplit=1)", "(A.split(S)[:1] + [A.split(S)[1:] | join(S)]) if A.split(S) | length > 1 else [A]"),
    ("A.split(S, -1)", "A.split(S)"),
    ("A.rsplit(S, 1)", "([A.split(S)[:-1] | join(S)] + A.split(S)[-1:]) if A.split(S) | length > 1 else [A]"),
    ("A.rsplit(S, maxsplit=1)", "([A.split(S)[:-1] | join(S)] + A.split(S)[-1:]) if A.split(S) | length > 1 else [A]"),
    ("A.rsplit(S)", "A.split(S)"),
    ("A.partition(S)", "[A.split(S)[0], S, A.split(S)[1:] | join(S)] if A.split(S) | length > 1 else [A, '', '']"),
    ("A.rpartition(S)", "[A.split(S)[:-1] | join(S), S, A.split(S)[-1]] if A.split(S) | length > 1 else ['', '', A]"),
    ("A.removeprefix(S)", "(A.split(S)[1:] | join(S)) if A.startswith(S) else A"),
    ("A.removesuffix(S)", "(A.split(S)[:-1] | join(S)) if A.endswith(S) else A"),
    ("A.splitlines()", "((A.split('\\n')[:-1] if A.endswith('\\n') else A.split('\\n')) if A else [])"),
    ("A.upper()", _word_in_upper_case("A.upper()")),
    ("A.title()", _title("A", "A.title()")),
    ("A.capitalize()", _capitalized("A")),
    # Methods of mappings
    ("A.keys()", "A.items() | map(attribute=0) | list"),
    ("A.values()", "A.items() | map(attribute=1) | list"),
    # Filters
    ("A | d(B)", "A | default(B)"),
    ("A | d(B, C)", "A | default(B, C)"),
    ("A | string", "A | default('') | string"),
    ("A | replace(S, B)", "(A | default('') | string).split(S) | join(B)"),
    ("A | trim(B)", "A.strip(B)"),
    ("A | upper", _word_in_upper_case("A | upper")),
    ("A | title", _title("A | default('') | string", "A | title")),
    ("A | capitalize", _capitalized("A | default('') | string")),
    ("A | first", f"(A | list)[0] if A | list else {UNDEFINED}"),
    ("A | reverse", "A[::-1]"),
    ("A | abs", "A if A >= 0 else -A"),
    ("A | count", "A | length"),
    ("A | join(B, attribute=S)", "A | map(attribute=S) | join(B)"),
)
"""What is rewritten wherever it stands."""
THOROUGH: tuple[tuple[str, str], ...] = (
    ("A | upper", _letters_in_upper_case("A | default('') | string")),
    ("A.upper()", _letters_in_upper_case("A")),
    ("A[0]", "A[:1] if A is string else A[0]"),
    ("A[-1]", "A[-1:] if A is string else A[-1]"),
    ("A[N]", f"A[N] if A | length > N else {UNDEFINED}"),
    ("A[:N]", "A[:(N if A | length > N else A | length)]"),
    ("A[-N:]", "A[(-N if A | length > N else 0):]"),
    ("A[B + N]", f"A[B + N] if A | length > B + N else {UNDEFINED}"),
)
"""What makes a template longer, and is needed only where the rest is not enough."""


def rewritten(node: nodes.Expr, thorough: bool, truth: bool) -> nodes.Expr:
    """One expression, whose parts are rewritten already, in a form that the engine reads as jinja2 does.

    truth: whether only the expression's truth counts.
    """
    for rule in _rules(thorough):
        parts: dict[str, nodes.Expr] = {}
        if _fits(rule.pattern, node, parts):
            node = _filled(rule.replacement, parts)
    for change in CHANGES + (THOROUGH_CHANGES if thorough else ()):
        node = change(node, truth)
    return node


class Rule(Record):
    """An expression, and what it is rewritten as."""

    pattern: nodes.Expr
    replacement: nodes.Expr


@functools.cache
def _rules(thorough: bool) -> tuple[Rule, ...]:
    pairs = THOROUGH + SURE if thorough else SURE
    return tuple(Rule(_parsed(pattern), _parsed(replacement)) for pattern, replacement in pairs)


def parsed(text: str, **parts: nodes.Expr) -> nodes.Expr:
    """The expression in a text, with the parts that its capital letters stand for."""
    return _filled(_parsed(text), parts)


@functools.cache
def _parsed(text: str) -> nodes.Expr:
    (output,) = environment().parse("{{ " + text + " }}").body
    (node,) = output.nodes  # type: ignore[attr-defined]
    return node  # type: ignore[no-any-return]


def _fits(pattern: object, node: object, parts: dict[str, nodes.Expr]) -> bool:
    if isinstance(pattern, nodes.Name) and pattern.name in string.ascii_uppercase:
        if not isinstance(node, nodes.Expr) or not FITTING.get(pattern.name, _anything)(node):
            return False
        return parts.setdefault(pattern.name, node) == node
    if isinstance(pattern, nodes.Node):
        names = [name for name in pattern.fields if name != "ctx"]
        return type(pattern) is type(node) and all(
            _fits(getattr(pattern, name), getattr(node, name), parts) for name in names
        )
    if isinstance(pattern, list):
        return isinstance(node, list) and len(node) == len(pattern) and all(map(_fits_in(parts), pattern, node))
    return pattern == node


def _fits_in(parts: dict[str, nodes.Expr]) -> Callable[[object, object], bool]:
    return lambda pattern, node: _fits(pattern, node, parts)


def _filled(node: Part, parts: Mapping[str, nodes.Expr]) -> Part:
    """A copy of the expression with its parts."""
    if isinstance(node, nodes.Name) and node.name in parts:
        return cast("Part", parts[node.name])
    made = copy(node)
    for name, value in node.iter_fields():
        if isinstance(value, nodes.Node):
            setattr(made, name, _filled(value, parts))
        elif isinstance(value, list):
            items = [_filled(item, parts) if isinstance(item, nodes.Node) else item for item in value]
            setattr(made, name, items)
    return made


def _anything(node: nodes.Expr) -> bool:
    return True


def text_of(node: nodes.Node) -> str | None:
    """The text of a constant; None for another node."""
    return node.value if isinstance(node, nodes.Const) and isinstance(node.value, str) else None


def _is_text(node: nodes.Node) -> bool:
    return text_of(node) is not None


def _is_some_text(node: nodes.Node) -> bool:
    return bool(text_of(node))


def _is_number(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and type(node.value) is int and node.value > 0


def _is_variable(node: nodes.Node) -> bool:
    return not isinstance(node, nodes.List | nodes.Tuple | nodes.Dict)


FITTING = {"S": _is_some_text, "T": _is_text, "N": _is_number, "V": _is_variable}


def _comparison(node: nodes.Expr, truth: bool) -> nodes.Expr:
    """`a < b < c` as two comparisons; membership of a list of constants as it is."""
    if not isinstance(node, nodes.Compare) or len(node.ops) < 2:
        return node
    pairs: list[nodes.Expr] = []
    left = node.expr
    for operand in node.ops:
        pairs.append(nodes.Compare(left, [operand]))
        left = operand.expr
    return functools.reduce(nodes.And, pairs)


def _and_as_value(node: nodes.Expr, truth: bool) -> nodes.Expr:
    """`a and b` gives one of its sides; in the engine it gives true or false."""
    return node if truth or not isinstance(node, nodes.And) else parsed("B if A else A", A=node.left, B=node.right)


def _joined(node: nodes.Expr, truth: bool) -> nodes.Expr:
    """`~` makes nothing of what is undefined; the engine makes None of it."""
    if isinstance(node, nodes.Concat):
        node = copy(node)
        node.nodes = [parsed("A | default('')", A=part) if _may_be_undefined(part) else part for part in node.nodes]
    return node


def _length(node: nodes.Expr, truth: bool) -> nodes.Expr:
    """What is undefined has the length 0; in the engine it is an error."""
    if isinstance(node, nodes.Filter) and node.name == "length" and node.node and _may_be_undefined(node.node):
        return parsed("A | default([]) | length", A=node.node)
    return node


def _may_be_undefined(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name | nodes.Getattr | nodes.Getitem | nodes.CondExpr)


def _one_of_several(node: nodes.Expr, truth: bool) -> nodes.Expr:
    """`startswith` and `endswith` with several texts."""
    match node:
        case nodes.Call(node=nodes.Getattr(attr="startswith" | "endswith"), args=[nodes.Tuple(items=[_, *_] as texts)]):
            calls: list[nodes.Expr] = [nodes.Call(node.node, [text], [], None, None) for text in texts]
            return functools.reduce(nodes.Or, calls)
    return node


def _formatted(node: nodes.Expr, truth: bool) -> nodes.Expr:
    """`'{} %s'.format(a)`, `'%s' | format(a)`, `'%s' % a`, where nothing but the plain placeholder is used."""
    match node:
        case nodes.Call(
            node=nodes.Getattr(node=nodes.Const(value=str() as form), attr="format"), args=parts, kwargs=[]
        ):
            return _placed(form.split("{}"), parts, "{}") or node
        case nodes.Filter(node=nodes.Const(value=str() as form), name="format", args=parts, kwargs=[]):
            return _placed(form.split("%s"), parts, "%") or node
        case nodes.Mod(left=nodes.Const(value=str() as form), right=right):
            parts = right.items if isinstance(right, nodes.Tuple) else [right]
            return _placed(form.split("%s"), parts, "%") or node
    return node


def _placed(texts: Sequence[str], parts: Sequence[nodes.Expr], special: str) -> nodes.Expr | None:
    if len(texts) != len(parts) + 1 or any(character in text for text in texts for character in special):
        return None
    pieces: list[nodes.Expr] = [nodes.Const(texts[0])]
    for part, text in zip(parts, texts[1:], strict=True):
        pieces += [part, nodes.Const(text)]
    return nodes.Concat(pieces)


def _indented(node: nodes.Expr, truth: bool) -> nodes.Expr:
    """`indent` with the arguments that the engine knows."""
    if not isinstance(node, nodes.Filter) or node.name != "indent":
        return node
    named = named_arguments(node, ("width", "first", "blank"))
    made = copy(node)
    made.args = [named.pop("width", nodes.Const(4)), named.pop("first", nodes.Const(False))]
    made.kwargs = []
    return node if named else made


def named_arguments(node: nodes.Filter, names: Sequence[str]) -> dict[str, nodes.Expr]:
    """The arguments of a filter by their names; names: those of its parameters in their order."""
    named = [(str(keyword.key), keyword.value) for keyword in node.kwargs]
    return dict([*named, *zip(names, node.args, strict=False)])


def _json(node: nodes.Expr, truth: bool) -> nodes.Expr:
    """`tojson` without the arguments that say what it does anyway."""
    if not isinstance(node, nodes.Filter) or node.name != "tojson":
        return node
    named = named_arguments(node, tuple(JSON_DEFAULTS))
    made = copy(node)
    made.args = []
    given = {name: value for name, value in named.items() if value != _parsed(JSON_DEFAULTS.get(name, "none"))}
    made.kwargs = cast("list[nodes.Pair]", [nodes.Keyword(name, value) for name, value in given.items()])
    return made


JSON_DEFAULTS = {"ensure_ascii": "false", "indent": "none", "separators": "(', ', ': ')", "sort_keys": "false"}
"""The arguments of transformers' `tojson` in their order."""


def _mapping_call(node: nodes.Expr, truth: bool) -> nodes.Expr:
    """`dict(a=1)` as a literal."""
    match node:
        case nodes.Call(node=nodes.Name(name="dict"), args=[], dyn_args=None, dyn_kwargs=None):
            return nodes.Dict([nodes.Pair(nodes.Const(pair.key), pair.value) for pair in node.kwargs])
    return node


def _not_empty(node: nodes.Expr, truth: bool) -> nodes.Expr:
    """An empty mapping is not true; in the engine it is."""
    if truth and isinstance(node, nodes.Name | nodes.Getattr | nodes.Getitem):
        return parsed("A and A != {}", A=node)
    return node


def _indented_json(node: nodes.Expr, truth: bool) -> nodes.Expr:
    """`tojson` with an indent: the engine breaks lines inside empty lists and mappings, at any depth."""
    if not isinstance(node, nodes.Filter) or node.name != "tojson":
        return node
    indent = named_arguments(node, ()).get("indent")
    if not isinstance(indent, nodes.Const) or not isinstance(width := indent.value, int):
        return node
    made: nodes.Expr = node
    for depth, brackets in itertools.product(range(JSON_DEPTH), ("[]", "{}")):
        broken = f"{brackets[0]}\n{' ' * (width * (depth + 1))}\n{' ' * (width * depth)}{brackets[1]}"
        made = parsed("A.split(B) | join(C)", A=made, B=nodes.Const(broken), C=nodes.Const(brackets))
    return made


JSON_DEPTH = 9
"""How deep tools are nested that come out right."""


CHANGES: tuple[Callable[[nodes.Expr, bool], nodes.Expr], ...] = (
    _comparison, _one_of_several, _formatted, _indented, _json, _mapping_call, _and_as_value, _joined, _length,
)  # fmt: skip
"""What no pair of expressions can say."""
THOROUGH_CHANGES: tuple[Callable[[nodes.Expr, bool], nodes.Expr], ...] = (_not_empty, _indented_json)
