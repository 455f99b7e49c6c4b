"""Experts: nodes that hold the matrices of many experts as tensors [experts, N, K], and their quantized form.

`MoE` becomes `QMoE`. Both matrices of a node get one scheme, whose blocks must divide both their rows. A matrix may be
an identity, which only passes values on: it is written exactly, and counts neither as weights nor in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from drupe.api import Record
from drupe_blockquant import Scheme
from drupe_blockquant.scheme import BLOCK_SIZES
from drupe_nbits.expressions import SCALES, WEIGHT, ZERO_POINTS, QuantizeBlocks, QuantizeIdentities
from drupe_nbits.schemes import SCHEME, assigned
from drupe_nbits.sites import FLOATS
from drupe_onnx import (
    CHOSEN,
    MICROSOFT,
    Capabilities,
    Cast,
    Concat,
    Expression,
    Identities,
    LazyWeight,
    OperatorUse,
    Produced,
    Reshape,
    RowRange,
    Tape,
    as_type,
    element_name,
    expression_of,
    ir,
    shared_initializer,
)
from drupe_onnx.traits import ACCURACY_LEVEL, SEVERAL_BLOCKS

FLOAT, QUANTIZED = "MoE", "QMoE"
UP, UP_BIAS, DOWN, DOWN_BIAS = 2, 3, 4, 5
"""The places of MoE's inputs."""
ZERO_POINT_PLACES = (11, 12)
"""The places of QMoE's zero points. Between them and the biases lie the inputs for a third matrix."""
NORMALISED = "normalize_routing_weights"
WANTED_BLOCK = 128
ROWS_UNCHANGED = {"weights_prepacked": 0}
"""The attribute of QMoE for weights whose rows lie as they are. Kernels that do not know it take them so, too."""


class ExpertMatrices(Record):
    """The matrices of all experts in one initializer. rows: [experts * N, K]."""

    weight: ir.Value
    rows: Expression
    experts: int

    @property
    def columns(self) -> int:
        return self.rows.shape[1]

    @property
    def is_identity(self) -> bool:
        """Whether the matrices only pass values on: they are no weights of the model."""
        return isinstance(self.rows, Identities)

    @property
    def apart(self) -> Sequence[Expression]:
        """The matrix of each expert."""
        if isinstance(self.rows, Concat) and len(self.rows.parts) == self.experts:
            return self.rows.parts
        count = self.rows.shape[0] // self.experts
        return [RowRange(self.rows, count * each, count * (each + 1)) for each in range(self.experts)]

    def shaped(self, expression: Expression, columns: int) -> Expression:
        """A matrix of as many rows, as a tensor [experts, N, columns]."""
        return Reshape(expression, (self.experts, self.rows.shape[0] // self.experts, columns))


class ExpertSite(Record):
    """A node that runs experts. up, down: its matrices before and after the activation."""

    node: ir.Node
    up: ExpertMatrices
    down: ExpertMatrices

    @property
    def name(self) -> str:
        """The site's name in messages."""
        return self.node.name or self.node.op_type

    @property
    def scheme(self) -> Scheme | None:
        """The scheme that an earlier pass has assigned."""
        return assigned(self.node)

    @property
    def dtype(self) -> ir.DataType:
        """The type that the graph computes in here."""
        return self.node.outputs[0].dtype or ir.DataType.FLOAT

    @property
    def size(self) -> int:
        """How many weights there are."""
        return sum(each.rows.size for each in self.weights)

    @property
    def weights(self) -> tuple[ExpertMatrices, ...]:
        """The matrices that are weights of the model."""
        return tuple(each for each in (self.up, self.down) if not each.is_identity)

    @property
    def chosen(self) -> int:
        """How many experts a token runs."""
        told = self.node.metadata_props.get(CHOSEN)
        held = self.node.attributes.get("k")
        return int(told) if told is not None else held.as_int() if held is not None else 1


def find_experts(graph: ir.Graph) -> list[ExpertSite]:
    """Every node of a graph with experts in floating point, in its order."""
    return [site for node in graph for site in _site(node)]


def expert_schemes(
    site: ExpertSite, bits: int, symmetric: bool, block_size: int | None, capabilities: Capabilities
) -> list[Scheme]:
    """The supported schemes with these bits, the best first; an assigned scheme is the only one."""
    if site.scheme is not None:
        return [site.scheme]
    sizes = [block_size] if block_size else sorted(BLOCK_SIZES, key=lambda size: (size > WANTED_BLOCK, -size))
    found = [Scheme(bits, size, symmetric) for size in sizes]
    return [scheme for scheme in found if expert_refusal(site, scheme, capabilities) is None]


def expert_refusal(site: ExpertSite, scheme: Scheme, capabilities: Capabilities) -> str | None:
    """Why the target does not support the experts under a scheme; None where it does.

    QMoE on processors divides the weights of the chosen experts by their sum, whatever its attribute says.
    """
    normalised = site.node.attributes.get(NORMALISED)
    if normalised is None or not normalised.as_int():
        return "it does not divide the weights of the chosen experts by their sum, and QMoE does"
    for each in (site.up, site.down):
        if each.columns % scheme.block_size:
            return f"its rows of {each.columns} values are not whole blocks of {scheme.block_size}"
        single = not scheme.symmetric and scheme.bits == 4 and scheme.blocks(each.columns) == 1
        if single and capabilities.traits.get(SEVERAL_BLOCKS):
            return f"its rows of {each.columns} values are a single block, with zero points"
    return capabilities.refusal(_use(site, _attributes(site, scheme, {}), scheme))


def expert_bytes(site: ExpertSite, scheme: Scheme) -> int:
    """Bytes of the quantized matrices."""
    scale_bytes = site.dtype.bitwidth // 8
    return sum(scheme.bytes_for(each.rows.shape[0], each.columns, scale_bytes) for each in site.weights)


def quantize_experts(
    graph: ir.Graph,
    site: ExpertSite,
    scheme: Scheme,
    capabilities: Capabilities,
    ready: Sequence[Sequence[Expression] | None] = (None, None),
) -> None:
    """Replace the node by one with quantized weights.

    ready: for `up` and `down`, the outputs of `QuantizeBlocks` for the rows of all experts, where they were made
    elsewhere; by default the writer makes them, piece by piece.
    """
    graph.opset_imports.setdefault(MICROSOFT, 1)
    up, down = (
        _quantized(graph, site, each, scheme, made) for each, made in zip((site.up, site.down), ready, strict=True)
    )
    biases = [site.node.inputs[place] if len(site.node.inputs) > place else None for place in (UP_BIAS, DOWN_BIAS)]
    inputs = [*site.node.inputs[:2], *up[:ZERO_POINTS], biases[0], *down[:ZERO_POINTS], biases[1]]
    if not scheme.symmetric:
        inputs += [None] * (ZERO_POINT_PLACES[0] - len(inputs)) + [up[ZERO_POINTS], down[ZERO_POINTS]]
    while inputs[-1] is None:
        inputs.pop()
    marks = {key: value for key, value in site.node.metadata_props.items() if key != SCHEME}
    result, tape = site.node.outputs[0], Tape()
    attributes = _supported(site, scheme, capabilities)
    made = tape.node(QUANTIZED, inputs, site.name, site.dtype, result.shape, attributes, domain=MICROSOFT, marks=marks)
    ir.convenience.replace_nodes_and_values(graph, site.node, [site.node], tape.nodes, [result], [made])


def keep_experts(graph: ir.Graph, site: ExpertSite) -> None:
    """Leave the experts in floating point, in the type that the graph computes in."""
    for place, each in ((UP, site.up), (DOWN, site.down)):
        if each.is_identity:
            continue
        rows = as_type(each.rows, site.dtype)
        name = f"{each.weight.name}_{element_name(site.dtype)}"
        value = shared_initializer(graph, name, each.shaped(rows, each.columns))
        site.node.replace_input_with(place, value)


def put_expert_rows(matrices: ExpertMatrices, rows: Expression) -> None:
    """Replace the matrices of all experts by `rows` [experts * N, K], stored in the same type."""
    dtype = matrices.weight.dtype
    assert dtype is not None
    stored = matrices.shaped(as_type(rows, dtype), matrices.columns)
    matrices.weight.const_value = LazyWeight(matrices.weight.name, stored)


def _site(node: ir.Node) -> Iterator[ExpertSite]:
    if (node.domain, node.op_type) != (MICROSOFT, FLOAT) or len(node.inputs) <= DOWN:
        return
    up, down = (_matrices(node.inputs[place]) for place in (UP, DOWN))
    third = len(node.inputs) > DOWN_BIAS + 1
    if up is not None and down is not None and not third:
        yield ExpertSite(node, up, down)


def _matrices(given: ir.Value | None) -> ExpertMatrices | None:
    """The matrices of an initializer, also behind a Cast."""
    cast = given.producer() if given is not None else None
    weight = cast.inputs[0] if cast is not None and cast.op_type == "Cast" else given
    if weight is None or not weight.is_initializer() or weight.dtype not in FLOATS:
        return None
    expression = expression_of(weight)
    if expression is None or len(expression.shape) != 3 or 0 in expression.shape:
        return None
    experts, rows, columns = expression.shape
    return ExpertMatrices(weight, _flat(expression, (experts * rows, columns)), experts)


def _flat(expression: Expression, shape: tuple[int, int]) -> Expression:
    """The tensor as one matrix, before casts: quantizing reads it directly."""
    inner = expression
    while isinstance(inner, Reshape) or (isinstance(inner, Cast) and inner.source.dtype in FLOATS):
        inner = inner.source
    return inner if inner.shape == shape else Reshape(inner, shape)


def _quantized(
    graph: ir.Graph, site: ExpertSite, matrices: ExpertMatrices, scheme: Scheme, made: Sequence[Expression] | None
) -> list[ir.Value]:
    """The initializers of quantized matrices: levels, scales, and zero points where the scheme has them."""
    producer = (QuantizeIdentities if matrices.is_identity else QuantizeBlocks)(matrices.rows, scheme, site.dtype)
    parts = made or [Produced(producer, place) for place in range(len(producer.outputs))]
    stem = f"{matrices.weight.name}_Q{scheme.bits}{'S' if scheme.symmetric else 'A'}{scheme.block_size}"
    k = matrices.columns
    widths = {WEIGHT: scheme.packed_width(k), SCALES: scheme.blocks(k), ZERO_POINTS: scheme.zero_point_width(k)}
    found = []
    for place, (spec, part) in enumerate(zip(producer.outputs, parts, strict=True)):
        expression = matrices.shaped(part, widths[place])
        found.append(shared_initializer(graph, f"{stem}_{spec.name}", expression))
    return found


def _attributes(site: ExpertSite, scheme: Scheme, more: dict[str, int]) -> dict[str, Any]:
    own = {name: attribute.value for name, attribute in site.node.attributes.items()}
    return {**own, "expert_weight_bits": scheme.bits, "block_size": scheme.block_size, **more}


def _supported(site: ExpertSite, scheme: Scheme, capabilities: Capabilities) -> dict[str, Any]:
    """The node's attributes, with those that the target's kernel knows of the ones that newer kernels have."""
    level = capabilities.traits.get(ACCURACY_LEVEL)
    wanted = {**ROWS_UNCHANGED, **({} if level is None else {"accuracy_level": level})}
    known = {
        name: value
        for name, value in wanted.items()
        if capabilities.serves(_use(site, _attributes(site, scheme, {name: value}), scheme))
    }
    return _attributes(site, scheme, known)


def _use(site: ExpertSite, attributes: dict[str, Any], scheme: Scheme) -> OperatorUse:
    """The quantized node, in the form that a target's table takes."""
    element = element_name(site.dtype)
    half: Sequence[str] = ("uint8", element, "")
    inputs = (element, element, *half, *half)
    if not scheme.symmetric:
        inputs = (*inputs, *[""] * (ZERO_POINT_PLACES[0] - len(inputs)), "uint8", "uint8")
    return OperatorUse(MICROSOFT, QUANTIZED, 1, inputs, (element,), attributes)
