"""Splitting the vocabulary: its matrices may have one scheme for frequent tokens, and another for the rest.

Tokenizers number their tokens by frequency in training: byte-pair encodings in the order of their merges, unigram
models by probability. Therefore the first rows of a matrix belong to frequent tokens.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import replace
from drupe_mixed_precision.groups import Group
from drupe_nbits import EMBEDDING, HEAD, Site, replace_site
from drupe_onnx import ROLE, ROWS, Array, RowRange, Tape, Transpose, as_type, ir, shared_initializer

LEAST = 2048
"""The smallest number of tokens in a vocabulary that is worth splitting."""
PARTS = (0.25, 0.5)
"""The places where the vocabulary may be split."""
RARE_AT_FIRST = 30.0
"""By Zipf's law, the first r tokens make up a share of text that grows with the logarithm of r. The growth starts
later if the first tokens are rare: a byte-level tokenizer begins with single bytes. Fitted to tokenizers of 2,048 and
4,096 tokens."""

Range = tuple[int, int]


def parts_of_vocabulary(group: Group) -> list[Group]:
    """The ranges of rows that may have their own schemes; the group itself where it is not a large vocabulary."""
    tokens = group.shape[0]
    if tokens < LEAST or not group.roles <= {EMBEDDING, HEAD} or any(site.bias is not None for site in group.sites):
        return [group]
    bounds = [0, *(int(tokens * place) for place in PARTS), tokens]
    return [
        replace(group, rows=(first, last), share=token_share(last, tokens) - token_share(first, tokens))
        for first, last in itertools.pairwise(bounds)
    ]


def token_share(first: int, tokens: int) -> float:
    """The share of text that consists of the `first` of so many tokens."""
    return math.log1p(first / RARE_AT_FIRST) / math.log1p(tokens / RARE_AT_FIRST)


def split(group: Group, bounds: Sequence[int]) -> list[list[ir.Node]]:
    """Make each range of rows between bounds a separate matrix; returns the nodes that use it, for each range.

    Further nodes combine the results: looked-up rows are chosen by the token's number, products are concatenated.
    """
    ranges = list(itertools.pairwise(bounds))
    users: list[list[ir.Node]] = [[] for _ in ranges]
    for site in group.sites:
        graph = site.node.graph
        assert isinstance(graph, ir.Graph)
        splitting = _Splitting(graph, site)
        nodes = splitting.look_ups(ranges) if site.is_look_up else splitting.products(ranges)
        for found, node in zip(users, nodes, strict=True):
            found.append(node)
    return users


def _marked(node: ir.Node, first: int, last: int) -> ir.Node:
    """The node, which says in its metadata which rows its matrix is."""
    node.metadata_props[ROWS] = f"{first}-{last - 1}"
    return node


class _Splitting:
    """Splits one site into several."""

    def __init__(self, graph: ir.Graph, site: Site) -> None:
        self._graph, self._site = graph, site
        self._tape = Tape()

    def look_ups(self, ranges: Sequence[Range]) -> list[ir.Node]:
        """A Gather for each range, which gives any row for tokens of other ranges; then a choice by token number."""
        ids = self._site.activations
        shape = [*(ids.shape or ()), self._site.rows.shape[1]]
        users, joined = [], None
        for first, last in ranges:
            within = ids if not first else self._node("Sub", [ids, self._number(first)], f"{first}/Sub", ids.shape)
            bounds = [self._number(0), self._number(last - first - 1)]
            row = self._node("Clip", [within, *bounds], f"{first}/Clip", ids.shape)
            table = self._table(first, last)
            rows = self._node("Gather", [table, row], f"{first}/Gather", shape, self._site.dtype, EMBEDDING)
            users.append(_marked(self._tape.nodes[-1], first, last))
            joined = rows if joined is None else self._chosen(rows, joined, first, shape)
        replace_site(self._graph, self._site, self._tape.nodes)
        return users

    def products(self, ranges: Sequence[Range]) -> list[ir.Node]:
        """A product for each range, and the concatenation of the results."""
        old, result = self._site.node, self._site.result
        leading = list(result.shape or ())[:-1]
        parts, users = [], []
        for first, last in ranges:
            shape = [*leading, last - first]
            inputs = [self._site.activations, self._table(first, last)]
            kept, label = old.attributes, f"{first}/{old.op_type}"
            parts.append(self._node(old.op_type, inputs, label, shape, self._site.dtype, HEAD, old.domain, kept))
            users.append(_marked(self._tape.nodes[-1], first, last))
        self._node("Concat", parts, "Concat", result.shape, self._site.dtype, attributes={"axis": -1})
        replace_site(self._graph, self._site, self._tape.nodes)
        return users

    def _chosen(self, rows: ir.Value, others: ir.Value, first: int, shape: Sequence[Any]) -> ir.Value:
        """`rows` where the token's number is at least `first`, `others` elsewhere."""
        ids = self._site.activations
        boolean = ir.DataType.BOOL
        here = self._node("GreaterOrEqual", [ids, self._number(first)], f"{first}/GreaterOrEqual", ids.shape, boolean)
        axis = self._constant("last_axis", np.array([-1], np.int64))
        wide = self._node("Unsqueeze", [here, axis], f"{first}/Unsqueeze", [*shape[:-1], 1], boolean)
        return self._node("Where", [wide, rows, others], f"{first}/Where", shape, self._site.dtype)

    def _table(self, first: int, last: int) -> ir.Value:
        """The rows of a range in the layout of the site's node, in the type that it computes in."""
        rows = as_type(RowRange(self._site.rows, first, last), self._site.dtype)
        name = f"{self._site.weight.name}.{first}-{last}"
        if self._site.transposed:
            return shared_initializer(self._graph, f"{name}.transposed", Transpose(rows))
        return shared_initializer(self._graph, name, rows)

    def _number(self, value: int) -> ir.Value:
        dtype = self._site.activations.dtype or ir.DataType.INT64
        return self._constant(str(value), np.array(value, dtype.numpy()))

    def _constant(self, label: str, value: NDArray[Any]) -> ir.Value:
        return shared_initializer(self._graph, f"{self._site.node.name}/{label}", Array(value))

    def _node(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        label: str,
        shape: ir.Shape | Sequence[Any] | None,
        dtype: ir.DataType | None = None,
        role: str = "",
        domain: str = "",
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """The output of a new node; by default its type is that of the token numbers."""
        name, marks = f"{self._site.node.name}/{label}", {ROLE: role} if role else None
        dtype = dtype or self._site.activations.dtype or ir.DataType.INT64
        return self._tape.node(operator, inputs, name, dtype, shape, attributes, domain=domain, marks=marks)
