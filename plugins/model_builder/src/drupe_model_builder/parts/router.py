"""Router: how each token chooses its experts, and how much each of these counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from drupe.api import Record
from drupe_model_builder.dimensions import Dims, dims
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.norm import Norm, norm

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import ir

ROUTER = "router"
"""The role of products that decide which experts are run."""
NEVER = -10_000.0
"""The logit of an expert that is not chosen."""
SMALLEST = 1e-30
"""The smallest weight whose logarithm is taken."""


class Router(Record):
    """A product that gives a logit for each expert, and what is done with the logits.

    score: what makes weights of logits; "sparsemixer" chooses two experts one after the other. choice_bias: a tensor
    [..., experts] that is added for the choice only. chosen_by: what it is added to. groups: experts lie in so many
    groups, and only those of the `kept_groups` best are chosen from. group_score: how many of a group's best experts
    count for it. normalise: the weights of the chosen experts are divided by their sum. factor: on all weights.
    softcap: logits become softcap * tanh(logits / softcap); 0 for none. jitter: "sparsemixer" weighs against experts
    whose logits lie at most this share below the best. norm: the router's own, before the product. expert_factors: a
    tensor [experts], each expert's factor on its weight; only `weights_of_chosen` applies it. idle: how many experts,
    the last ones, give their input back and compute nothing; only for weights that are not normalised.
    """

    linear: Linear
    chosen: int
    score: Literal["softmax", "sigmoid", "sparsemixer"] = "softmax"
    choice_bias: str | None = None
    choice_bias_shape: tuple[int, ...] = ()
    chosen_by: Literal["score", "logit"] = "score"
    groups: int = 1
    kept_groups: int = 1
    group_score: int = 2
    normalise: bool = True
    factor: float = 1.0
    softcap: float = 0.0
    jitter: float = 0.02
    norm: Norm | None = None
    expert_factors: str | None = None
    idle: int = 0

    @property
    def experts(self) -> int:
        return self.linear.size

    @property
    def computing(self) -> int:
        """How many experts have matrices."""
        return self.experts - self.idle

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        yield from self.linear.tensors()
        if self.choice_bias is not None:
            yield self.choice_bias, self.choice_bias_shape or (self.experts,)
        if self.norm is not None:
            yield from self.norm.tensors()
        if self.expert_factors is not None:
            yield self.expert_factors, (self.experts,)


class Routing(Record):
    """What the operator of the experts is told, and what its result is multiplied with.

    logits: [tokens, experts]; a softmax over the chosen ones gives their weights. factor: a number, or a value for each
    token; None for 1. kept: a value for each token, the weight of its own hidden state; None for 0.
    """

    logits: ir.Value
    factor: ir.Value | None
    kept: ir.Value | None = None


def route(graph: GraphBuilder, part: Router, x: ir.Value) -> Routing:
    """The routing of x [batch, sequence, hidden]. It is computed in float32: near ties decide which experts are run.

    Operators choose by the largest logits, and weigh by a softmax over the chosen ones. On processors, QMoE of
    onnxruntime 1.32 does so even where its attribute `normalize_routing_weights` is 0. Other weights are given as
    logarithms, with all other experts far below. The softmax divides the weights by their sum, and `factor` multiplies
    it in again.
    """
    from drupe_onnx import ir

    assert part.expert_factors is None and not (part.idle and part.normalise)
    steps, logits = _logits(graph, part, x)
    constant = None if part.factor == 1.0 else graph.number(part.factor)
    if part.score == "softmax" and part.choice_bias is None and part.groups == 1 and not part.idle:
        if part.normalise:
            return Routing(_rows(graph, part, logits), constant)
        weights, _ = steps.top(steps("Softmax", logits, axis=-1), part.chosen)
        return Routing(_rows(graph, part, logits), _sum_of_weights(graph, steps, part, weights))
    if part.score == "sparsemixer":
        weights, places = _sparsemixer(steps, part, logits)
    else:
        weights, places = _best(steps, part, logits)
    kept = None
    if part.idle:
        weights, idle = _by_work(steps, part, weights, places)
        kept = _sum_of_weights(graph, steps, part, idle)
    safe = steps("Log", steps("Max", weights, steps.number(SMALLEST), shape=dims(weights)), shape=dims(weights))
    below = steps("Expand", steps.number(NEVER), steps("Shape", logits, shape=[3], dtype=ir.DataType.INT64))
    told = steps("ScatterElements", below, places, safe, axis=-1)
    if part.idle:
        bounds = [graph.integers([each]) for each in (0, part.computing, 2)]
        told = steps("Slice", told, *bounds, shape=[*dims(logits)[:-1], part.computing])
    factor = constant if part.normalise else _sum_of_weights(graph, steps, part, weights)
    return Routing(_rows(graph, part, told), factor, kept)


def weights_of_chosen(graph: GraphBuilder, part: Router, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The weights of the experts that each token of x runs, float32, and their numbers: [batch, sequence, chosen]."""
    from drupe_onnx import as_type, ir

    steps, logits = _logits(graph, part, x)
    weights, places = (_sparsemixer if part.score == "sparsemixer" else _best)(steps, part, logits)
    shape, one = dims(weights), [*dims(weights)[:-1], 1]
    if part.normalise:
        total = steps("ReduceSum", weights, graph.integers([-1]), shape=one, keepdims=1)
        weights = steps("Div", weights, total, shape=shape)
    if part.factor != 1.0:
        weights = steps("Mul", weights, steps.number(part.factor), shape=shape)
    if part.expert_factors is not None:
        factors = as_type(graph.weights[part.expert_factors], ir.DataType.FLOAT)
        own = steps("Gather", graph.initializer(part.expert_factors, factors), places, shape=shape, axis=0)
        weights = steps("Mul", weights, own, shape=shape)
    return weights, places


def _logits(graph: GraphBuilder, part: Router, x: ir.Value) -> tuple[_Steps, ir.Value]:
    """The logits [batch, sequence, experts] in float32, and what makes further nodes of the router."""
    from drupe_onnx import ir

    wide = ir.DataType.FLOAT
    logits = router_product(graph, part.linear, x if part.norm is None else norm(graph, part.norm, x))
    steps = _Steps(graph, part.linear.name, dims(logits))
    if logits.dtype != wide:
        logits = steps("Cast", logits, to=wide)
    if part.softcap:
        bent = steps("Tanh", steps("Div", logits, steps.number(part.softcap)))
        logits = steps("Mul", bent, steps.number(part.softcap))
    return steps, logits


def router_product(graph: GraphBuilder, part: Linear, x: ir.Value, called: str | None = None) -> ir.Value:
    """The product for x, with a matrix in the activations' type, which is never quantized: it is small.

    called: the prefix of the nodes where a matrix is used twice.
    """
    from drupe_onnx import Transpose, as_type

    name, shape = called or part.name, [*dims(x)[:-1], part.size]
    matrix = Transpose(as_type(part.rows.expression(graph.weights), graph.dtype))
    weight = graph.initializer(f"{part.name}.weight", matrix)
    out = graph.node("MatMul", [x, weight], f"{name}/MatMul", shape, role=ROUTER)
    if part.factor != 1.0:
        out = graph.node("Mul", [out, graph.number(part.factor)], f"{name}/Scale", shape)
    if part.bias is None:
        return out
    bias = graph.vector(f"{part.name}.bias", part.bias.expression(graph.weights))
    return graph.node("Add", [out, bias], f"{name}/Add", shape)


class _Steps:
    """Nodes of float32 that are named after the router."""

    def __init__(self, graph: GraphBuilder, name: str, shape: Dims) -> None:
        self.graph, self._name, self._shape = graph, name, shape
        self._count = 0

    def number(self, value: float) -> ir.Value:
        from drupe_onnx import ir

        return self.graph.number(value, ir.DataType.FLOAT)

    def __call__(
        self,
        operator: str,
        *inputs: ir.Value,
        shape: Dims | None = None,
        dtype: ir.DataType | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """The output of a node, by default of the logits' shape."""
        from drupe_onnx import ir

        self._count += 1
        name = f"{self._name}/{operator}{self._count}"
        kind = dtype or ir.DataType.FLOAT
        shape = self._shape if shape is None else shape
        return self.graph.node(operator, inputs, name, shape, dtype=kind, **attributes)

    def top(self, x: ir.Value, count: int) -> tuple[ir.Value, ir.Value]:
        """The largest values along the last axis, and their places."""
        from drupe_onnx import ir

        self._count += 1
        shape = [*dims(x)[:-1], count]
        kinds: list[tuple[ir.DataType, Dims] | None] = [(ir.DataType.FLOAT, shape), (ir.DataType.INT64, shape)]
        inputs = [x, self.graph.integers([count])]
        values, places = self.graph.nodes("TopK", inputs, f"{self._name}/TopK{self._count}", kinds, axis=-1)
        return values, places


def _best(steps: _Steps, part: Router, logits: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The weights of the chosen experts, and their numbers: both [batch, sequence, chosen]."""
    from drupe_onnx import Reshape, as_type, ir

    graph = steps.graph
    score = steps("Sigmoid", logits) if part.score == "sigmoid" else steps("Softmax", logits, axis=-1)
    choice = score if part.chosen_by == "score" else logits
    if part.choice_bias is not None:
        bias = as_type(Reshape(graph.weights[part.choice_bias], (part.experts,)), ir.DataType.FLOAT)
        choice = steps("Add", choice, graph.initializer(part.choice_bias, bias))
    if part.groups > 1:
        choice = _within_groups(steps, part, choice)
    _, places = steps.top(choice, part.chosen)
    return steps("GatherElements", score, places, shape=dims(places), axis=-1), places


def _by_work(steps: _Steps, part: Router, weights: ir.Value, places: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The weights of experts that compute something, with zeros for idle ones, and the other way round."""
    from drupe_onnx import ir

    shape = dims(weights)
    works = steps("Less", places, steps.graph.integers(part.computing), shape=shape, dtype=ir.DataType.BOOL)
    zero = steps.number(0.0)
    return (
        steps("Where", works, weights, zero, shape=shape),
        steps("Where", works, zero, weights, shape=shape),
    )


def _within_groups(steps: _Steps, part: Router, choice: ir.Value) -> ir.Value:
    """The choice with all experts outside the best groups at minus infinity."""
    from drupe_onnx import ir

    graph, before = steps.graph, dims(choice)[:-1]
    apart = [*before, part.groups, part.experts // part.groups]
    grouped = steps("Reshape", choice, graph.integers([0, 0, part.groups, -1]), shape=apart)
    best, _ = steps.top(grouped, part.group_score)
    totals = steps("ReduceSum", best, graph.integers([-1]), shape=[*before, part.groups], keepdims=0)
    kept, places = steps.top(totals, part.kept_groups)
    outside = steps(
        "Expand",
        steps.number(float("-inf")),
        steps("Shape", totals, shape=[3], dtype=ir.DataType.INT64),
        shape=[*before, part.groups],
    )
    zeros = steps("Mul", kept, steps.number(0.0), shape=dims(kept))
    mask = steps("ScatterElements", outside, places, zeros, shape=[*before, part.groups], axis=-1)
    column = steps("Unsqueeze", mask, graph.integers([-1]), shape=[*before, part.groups, 1])
    chosen = steps("Add", grouped, column, shape=apart)
    return steps("Reshape", chosen, graph.integers([0, 0, -1]))


def _sparsemixer(steps: _Steps, part: Router, logits: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The weights and numbers of two experts: the best one, and the best of the others.

    Each weight is the softmax over the experts that lie close to the best at its turn.
    """
    from drupe_onnx import ir

    size = steps("Abs", logits)
    never = steps.number(float("-inf"))
    left, weights, places = logits, [], []
    for _ in range(2):
        best, place = steps.top(left, 1)
        distance = steps("Div", steps("Sub", best, logits), steps("Max", size, best))
        far = steps("Greater", distance, steps.number(part.jitter), dtype=ir.DataType.BOOL)
        share = steps("Softmax", steps("Where", far, never, left), axis=-1)
        weights.append(steps("GatherElements", share, place, shape=dims(place), axis=-1))
        places.append(place)
        gone = steps("Add", best, never, shape=dims(best))
        left = steps("ScatterElements", left, place, gone, axis=-1)
    shape = [*dims(logits)[:-1], 2]
    joined = steps("Concat", *weights, shape=shape, axis=-1)
    return joined, steps("Concat", *places, shape=shape, dtype=ir.DataType.INT64, axis=-1)


def _sum_of_weights(graph: GraphBuilder, steps: _Steps, part: Router, weights: ir.Value) -> ir.Value:
    """The sum of each token's weights, times the router's factor: [batch, sequence, 1]."""
    from drupe_onnx import ir

    shape = [*dims(weights)[:-1], 1]
    total = steps("ReduceSum", weights, graph.integers([-1]), shape=shape, keepdims=1)
    if part.factor != 1.0:
        total = steps("Mul", total, steps.number(part.factor), shape=shape)
    if graph.dtype == ir.DataType.FLOAT:
        return total
    return steps("Cast", total, shape=shape, dtype=graph.dtype, to=graph.dtype)


def _rows(graph: GraphBuilder, part: Router, logits: ir.Value) -> ir.Value:
    """The logits as the operator takes them: [tokens, experts], in the activations' type."""
    name = part.linear.name
    shape: Dims = ["tokens", part.computing]
    rows = graph.node(
        "Reshape", [logits, graph.integers([-1, part.computing])], f"{name}/Rows", shape, dtype=logits.dtype
    )
    return rows if rows.dtype == graph.dtype else graph.node("Cast", [rows], f"{name}/Narrow", shape, to=graph.dtype)
