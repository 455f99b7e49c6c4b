"""Experts: many MLPs, of which each token runs a few that its router chooses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from drupe.api import Record, replace
from drupe_model_builder.dimensions import Dims, dims
from drupe_model_builder.parts.linear import Linear, linear
from drupe_model_builder.parts.mlp import MLP, mlp
from drupe_model_builder.parts.norm import Norm, norm
from drupe_model_builder.parts.required import Lacking
from drupe_model_builder.parts.router import Router, route, router_product
from drupe_model_builder.parts.rows import Rows

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import Expression, ir

OPERATOR = "MoE"
EXPERTS = "experts"
"""The role of their node."""
STEEP = 1e4
"""The slope that turns a sigmoid into a step: x * sigmoid(STEEP * x) * x is relu(x)^2, up to 1e-8."""


class Matrices(Record):
    """One matrix for each expert, and its bias where it has one."""

    rows: tuple[Rows, ...]
    biases: tuple[Rows, ...] = ()

    @property
    def size(self) -> int:
        """How many values each expert's matrix gives."""
        return self.rows[0].count

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for rows in (*self.rows, *self.biases):
            yield rows.tensor, rows.shape


class Experts(Record):
    """The experts of one layer: down((gate * sigmoid(slope * gate)) * (up + offset)), summed by the router's weights.

    Without a gate they are down(relu(up)^2), as in Nemotron-H.

    name: the prefix of their tensors and nodes. limit: gate is at most this, and up at most this in size; None for no
    limit. shared: an MLP that every token runs; shared_gate: a product whose sigmoid it is multiplied with.
    activation: of the gate, in place of the sigmoid; see `expert_halves`. weighs_input: whether the router's weights
    multiply the input in place of the result; see `weighted_inputs`. before: a norm that the experts read and the
    router does not. inward, outward: products before and after the experts, which have another hidden size then.
    factor: on the sum of all. bias: a tensor [hidden], which is added to the sum. renamed: pairs of the beginning of a
    tensor's name here, and in a checkpoint with merged experts.
    """

    name: str
    router: Router
    gate: Matrices | None
    up: Matrices
    down: Matrices
    slope: float = 1.0
    offset: float = 0.0
    limit: float | None = None
    shared: MLP | None = None
    shared_gate: Linear | None = None
    inward: Linear | None = None
    outward: Linear | None = None
    factor: float = 1.0
    renamed: tuple[tuple[str, str], ...] = ()
    activation: str | None = None
    weighs_input: bool = False
    before: Norm | None = None
    bias: str | None = None

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        others = (self.shared, self.inward, self.outward, self.shared_gate, self.before)
        for part in (self.router, self.gate, self.up, self.down, *others):
            if part is not None:
                yield from part.tensors()
        if self.bias is not None:
            yield self.bias, (self.down.size,)


def experts(graph: GraphBuilder, part: Experts, x: ir.Value) -> ir.Value:
    """x and the result are [batch, sequence, hidden]. Raises Lacking where the target has no operator for it."""
    routing = route(graph, part.router, x)
    inner = x if part.before is None else norm(graph, part.before, x)
    inner = inner if part.inward is None else linear(graph, part.inward, inner, "mlp.up")
    out = run_experts(graph, part, inner, routing.logits)
    if routing.factor is not None:
        out = graph.node("Mul", [out, routing.factor], f"{part.name}/Weighted", dims(inner))
    if routing.kept is not None:
        kept = graph.node("Mul", [inner, routing.kept], f"{part.name}/Kept", dims(inner))
        out = graph.node("Add", [out, kept], f"{part.name}/WithKept", dims(inner))
    if part.outward is not None:
        out = linear(graph, part.outward, out, "mlp.down")
    return with_shared(graph, part, out, x)


def run_experts(graph: GraphBuilder, part: Experts, x: ir.Value, logits: ir.Value, **settings: Any) -> ir.Value:
    """The node of the experts for x [batch, rows, hidden]. logits: [rows, experts]. settings: attributes on routing.

    Raises Lacking where the target has no operator for it.
    """
    from drupe_onnx import MICROSOFT

    attributes = {**_attributes(part), **settings}
    refuse_unserved(graph, attributes)
    raised, raised_bias = _woven(graph, part)
    lowered, lowered_bias = _down(graph, part)
    inputs = [x, logits, raised, raised_bias, lowered, lowered_bias]
    inputs = inputs if lowered_bias is not None else inputs[:-1]
    return graph.node(OPERATOR, inputs, part.name, dims(x), domain=MICROSOFT, role=EXPERTS, **attributes)


def with_shared(graph: GraphBuilder, part: Experts, out: ir.Value, x: ir.Value) -> ir.Value:
    """The sum of the chosen experts and the MLP that every token runs, times the factor. x: what they read."""
    if part.shared is not None:
        out = graph.node("Add", [out, _shared(graph, part, part.shared, x)], f"{part.name}/Shared", dims(x))
    if part.factor != 1.0:
        out = graph.node("Mul", [out, graph.number(part.factor)], f"{part.name}/Scale", dims(x))
    if part.bias is not None:
        out = graph.node("Add", [out, graph.vector(part.bias)], f"{part.name}/Add", dims(x))
    return out


def _attributes(part: Experts) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "k": part.router.chosen,
        "activation_type": "swiglu",
        "swiglu_fusion": 1,
        "activation_alpha": part.slope if part.gate is not None else STEEP,
        "activation_beta": part.offset,
        "normalize_routing_weights": 1,
    }
    return attributes if part.limit is None else {**attributes, "swiglu_limit": part.limit}


def refuse_unserved(graph: GraphBuilder, attributes: dict[str, Any]) -> None:
    """Raise Lacking for a target that can run the experts neither in floating point nor quantized."""
    from drupe_onnx import MICROSOFT, element_name, ir

    kind, byte = graph.dtype, ir.DataType.UINT8
    plain = graph.serves(OPERATOR, *[kind] * 3, None, kind, domain=MICROSOFT, outputs=[kind], **attributes)
    quantized = {**attributes, "expert_weight_bits": 4}
    types = (kind, kind, byte, kind, None, byte, kind)
    if plain or graph.serves("QMoE", *types, domain=MICROSOFT, outputs=[kind], **quantized):
        return
    raise Lacking(f"has neither MoE nor QMoE for {element_name(kind)} activations, so it cannot run experts")


def _woven(graph: GraphBuilder, part: Experts) -> tuple[ir.Value, ir.Value | None]:
    """The rows of gate and up in turn, expert after expert: [experts, 2 * width, hidden], and their biases."""
    from drupe_onnx import Interleave

    def weave(gates: Sequence[Rows], ups: Sequence[Rows]) -> list[Expression]:
        if gates and all(map(_are_woven, gates, ups)):
            return [replace(gate, ranges=()).expression(graph.weights) for gate in gates]
        alike = of_one_type([rows.expression(graph.weights) for rows in (*gates, *ups)])
        return [Interleave(pair) for pair in zip(alike[: len(gates)], alike[len(gates) :], strict=True)]

    name, gate = f"{part.name}.gate_up_proj", part.gate or part.up
    vectors = weave(gate.biases, part.up.biases)
    return stacked(graph, name, weave(gate.rows, part.up.rows)), _bias(graph, name, vectors)


def _are_woven(gate: Rows, up: Rows) -> bool:
    """Whether the rows of gate and up lie in turn in one matrix, which then stays as it is."""
    whole = 2 * gate.count
    alike = replace(gate, ranges=()) == replace(up, ranges=())
    return alike and (gate.ranges, up.ranges) == ((range(0, whole, 2),), (range(1, whole, 2),))


def _down(graph: GraphBuilder, part: Experts) -> tuple[ir.Value, ir.Value | None]:
    """The matrices `down`, expert after expert: [experts, hidden, width], and their biases."""
    name = f"{part.name}.down_proj"
    matrices = [rows.expression(graph.weights) for rows in part.down.rows]
    vectors = [rows.expression(graph.weights) for rows in part.down.biases]
    return stacked(graph, name, matrices), _bias(graph, name, vectors)


def stacked(graph: GraphBuilder, name: str, matrices: Sequence[Expression]) -> ir.Value:
    """The matrices as one tensor [experts, rows, columns]. Its expression is a matrix of all rows, reshaped."""
    from drupe_onnx import Concat, Reshape, as_type

    alike = of_one_type(matrices)
    stored = as_type(Concat(tuple(alike)), graph.precision.stored(alike[0].dtype))
    shape = (len(matrices), *matrices[0].shape)
    return graph.computable(graph.initializer(f"{name}.weight", Reshape(stored, shape)))


def _bias(graph: GraphBuilder, name: str, vectors: Sequence[Expression]) -> ir.Value | None:
    """The biases as one matrix [experts, rows], in the activations' type."""
    from drupe_onnx import Concat, Reshape

    if not vectors:
        return None
    shape = (len(vectors), *vectors[0].shape)
    return graph.vector(f"{name}.bias", Reshape(Concat(tuple(of_one_type(vectors))), shape))


def of_one_type(parts: Sequence[Expression]) -> list[Expression]:
    """The parts in one type: float32 where the checkpoint has mixed ones."""
    from drupe_onnx import as_type, ir

    if len({part.dtype for part in parts}) == 1:
        return list(parts)
    return [as_type(part, ir.DataType.FLOAT) for part in parts]


def _shared(graph: GraphBuilder, part: Experts, shared: MLP, x: ir.Value) -> ir.Value:
    """The result of the MLP that every token runs."""
    out = mlp(graph, shared, x)
    if part.shared_gate is None:
        return out
    shape: Dims = [*dims(x)[:-1], part.shared_gate.size]
    opened = router_product(graph, part.shared_gate, x)
    opened = graph.node("Sigmoid", [opened], f"{part.shared_gate.name}/Sigmoid", shape)
    return graph.node("Mul", [out, opened], f"{part.shared_gate.name}/Mul", dims(out))
