"""Experts in groups: a layer whose experts are too large to be held together runs a few of them at a time.

Each group is a node of its own that gets only the tokens that its experts are chosen for. Of a token's weights over all
experts it gets the logarithms of those in the group; the operator's own softmax divides them by their sum, so its
result is multiplied with that sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import Record, Session
from drupe_layerwise.expert_arithmetic import Routing
from drupe_layerwise.weights import EXPERT_PLACES, EXPERTS, made
from drupe_onnx import MICROSOFT, Access, Expression, RowRange, constant_of, ir

SHARE = 4
"""Experts are run in groups where they take more than this many times the memory budget."""
NEVER = -1e4
"""The logit of an expert that is not chosen."""
X, LOGITS = 0, 1
BIAS_PLACES = (3, 5, 7)


class LargeExperts(Record):
    """A node with experts. matrices, biases: by the place of the input; each has the experts first."""

    node: ir.Node
    routing: Routing
    matrices: Mapping[int, Expression]
    biases: Mapping[int, Expression]

    @property
    def count(self) -> int:
        """How many experts there are."""
        return next(iter(self.matrices.values())).shape[0]

    @property
    def nbytes(self) -> int:
        return sum(each.size * each.dtype.bitwidth // 8 for each in self.matrices.values())


def large_experts(graph: ir.Graph, memory_budget: int) -> LargeExperts | None:
    """The first node of a graph whose experts are too large to be held together; None where there is none."""
    for node in graph:
        if (node.domain, node.op_type) == (MICROSOFT, EXPERTS):
            found = _read(node)
            if found is not None and found.nbytes > SHARE * memory_budget:
                return found
    return None


def _read(node: ir.Node) -> LargeExperts | None:
    routing = Routing.of(node)
    matrices = {place: each for place in EXPERT_PLACES if (each := _constant(node, place)) is not None}
    biases = {place: each for place in BIAS_PLACES if (each := _constant(node, place)) is not None}
    given = {place for place, value in enumerate(node.inputs) if value is not None and place > LOGITS}
    apart = all(len(each.shape) == 3 and each.access == Access.ROWS for each in matrices.values())
    known = given == matrices.keys() | biases.keys()
    return LargeExperts(node, routing, matrices, biases) if routing and matrices and apart and known else None


def _constant(node: ir.Node, place: int) -> Expression | None:
    return constant_of(node.inputs[place]) if len(node.inputs) > place else None


class Groups(Record):
    """The experts of one node, `size` at a time."""

    experts: LargeExperts
    size: int

    @classmethod
    def of(cls, experts: LargeExperts, memory_budget: int) -> Groups:
        """Groups that each fit into the budget."""
        each = experts.nbytes // experts.count
        return cls(experts, max(1, min(experts.count, memory_budget // max(1, each))))

    def graph(self) -> ir.Model:
        """The node for one group: its tokens [tokens, hidden], logits and matrices are inputs."""
        node, inputs = self.experts.node, list[ir.Value | None]()
        for place, value in enumerate(node.inputs):
            if value is None:
                inputs.append(None)
                continue
            shape: list[int | str] = ["tokens", self.size] if place == LOGITS else ["tokens", "hidden"]
            constant = self.experts.matrices.get(place) or self.experts.biases.get(place)
            inputs.append(
                ir.val(_input(place), value.dtype, shape if constant is None else (self.size, *constant.shape[1:]))
            )
        attributes = {name: each for name, each in node.attributes.items() if name != "k"}
        attributes["k"] = ir.AttrInt64("k", min(self.experts.routing.chosen, self.size))
        attributes["normalize_routing_weights"] = ir.AttrInt64("normalize_routing_weights", 1)
        result = ir.val("result", node.outputs[0].dtype, ["tokens", "hidden"])
        made_node = ir.Node(MICROSOFT, EXPERTS, inputs, attributes.values(), outputs=[result], name="experts")
        given = [value for value in inputs if value is not None]
        graph = ir.Graph(given, [result], nodes=[made_node], opset_imports={"": 21, MICROSOFT: 1}, name="experts")
        return ir.Model(graph, ir_version=10)

    def run(self, session: Session, x: NDArray[Any], logits: NDArray[Any], threads: int) -> NDArray[Any]:
        """The node's result for x [..., hidden] and logits [tokens, experts]."""
        rows = np.ascontiguousarray(x.reshape(-1, x.shape[-1]))
        weights = self.experts.routing.weights(logits.astype(np.float32))
        result = np.zeros(rows.shape, np.float32)
        for first, new in self._ranges():
            own = weights[:, first : first + self.size].copy()
            own[:, :new] = 0  # those that the group before had
            tokens = np.flatnonzero(own.any(1))
            if not len(tokens):
                continue
            with np.errstate(divide="ignore"):
                logarithms = np.maximum(np.log(own[tokens]), NEVER).astype(logits.dtype)
            given = {_input(X): rows[tokens], _input(LOGITS): logarithms, **self._matrices(first, threads)}
            part = session.run(given, ["result"])["result"]
            result[tokens] += part.astype(np.float32) * own[tokens].sum(1, keepdims=True)
            del given  # frees the group before the next one is made
        return result.astype(x.dtype).reshape(x.shape)

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """The first expert of each group, and how many of its experts the group before had: all are of one size."""
        for start in range(0, self.experts.count, self.size):
            first = min(start, self.experts.count - self.size)
            yield first, start - first

    def _matrices(self, first: int, threads: int) -> dict[str, NDArray[Any]]:
        constants = {**self.experts.matrices, **self.experts.biases}
        return {
            _input(place): made(RowRange(each, first, first + self.size), threads) for place, each in constants.items()
        }


def _input(place: int) -> str:
    return f"input{place}"
