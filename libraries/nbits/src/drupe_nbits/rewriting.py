"""Rewriting: a site with float weights becomes one with quantized weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from drupe_blockquant import Scheme
from drupe_nbits.experts import ExpertSite
from drupe_nbits.expressions import PARTS, SCALES, UNITS, WEIGHT, QuantizeBlocks
from drupe_nbits.minimums import MinimumNodes, Minimums
from drupe_nbits.schemes import SCHEME
from drupe_nbits.sites import Site
from drupe_onnx import (
    FLOAT_MATRICES,
    MICROSOFT,
    Array,
    Capabilities,
    Expression,
    OperatorUse,
    Produced,
    Reshape,
    Tape,
    as_type,
    element_name,
    ir,
    remove_unused,
    shared_initializer,
)
from drupe_onnx.traits import ACCURACY_LEVEL

PRODUCT = "MatMulNBits"
MINIMUMS = "minimums"
"""The suffix of the initializer that holds a matrix's minimums; the other suffixes are PARTS."""


class Rewriter:
    """Rewrites the sites of one graph; equal weights under equal schemes share their initializers.

    accuracy_level: of MatMulNBits; None takes the level with which the target is fast.
    """

    def __init__(self, graph: ir.Graph, capabilities: Capabilities, accuracy_level: int | None = None) -> None:
        self.graph = graph
        self.accuracy_level = capabilities.traits.get(ACCURACY_LEVEL) if accuracy_level is None else accuracy_level
        graph.opset_imports.setdefault(MICROSOFT, 1)

    def rewrite(
        self,
        site: Site,
        scheme: Scheme,
        ready: Sequence[Expression] | None = None,
        minimums: Minimums | None = None,
    ) -> None:
        """Quantize one site under a scheme that the target supports for it.

        ready: the outputs of `QuantizeBlocks`, where they were made elsewhere; a Cast follows scales of another type
        than the site's. By default the writer quantizes the site's rows. minimums: of the blocks, where they
        have some; the scheme must be symmetric then, its blocks must fit, and `takes_minimums` must hold.
        """
        made = list(ready) if ready is not None else _quantized(site, scheme)
        weights = self._initializers(site, scheme, made)
        tape = Tape()
        if site.is_look_up:
            given = self._look_up(tape, site, scheme, made, weights)
        else:
            given = self._product(tape, site, scheme, weights)
        self._add_behind(tape, given, site, scheme, weights[SCALES], minimums)
        replace_site(self.graph, site, tape.nodes)

    def _product(self, tape: Tape, site: Site, scheme: Scheme, weights: Sequence[ir.Value]) -> ir.Value:
        """Replace a matrix product by MatMulNBits, with the product's bias if it has one."""
        attributes = _attributes(site, scheme)
        if self.accuracy_level is not None:
            attributes["accuracy_level"] = self.accuracy_level
        inputs: list[ir.Value | None] = [site.activations, *weights]
        if site.bias is not None:
            inputs += [None] * (5 - len(inputs)) + [site.bias]
        return self._record(tape, inputs, site, attributes)

    def _look_up(
        self, tape: Tape, site: Site, scheme: Scheme, made: Sequence[Expression], weights: Sequence[ir.Value]
    ) -> ir.Value:
        """Replace a look-up by GatherBlockQuantized."""
        n, blocks, width = made[WEIGHT].shape
        rows = Reshape(made[WEIGHT], (n, blocks * width))
        table = shared_initializer(self.graph, f"{_name(site, scheme)}_rows", rows)
        return self._record(tape, [table, site.activations, *weights[SCALES:]], site, _attributes(site, scheme))

    def _record(
        self, tape: Tape, inputs: Sequence[ir.Value | None], site: Site, attributes: Mapping[str, int]
    ) -> ir.Value:
        """Record the node that replaces a site's node, under the same name."""
        marks, name = _marks(site), site.node.name or ""
        return tape.node(
            _operator(site), inputs, name, site.dtype, attributes=attributes, domain=MICROSOFT, marks=marks
        )

    def _add_behind(
        self, tape: Tape, given: ir.Value, site: Site, scheme: Scheme, scales: ir.Value, minimums: Minimums | None
    ) -> None:
        """Record the nodes that turn the output of the replacing node into the site's result."""
        k = site.rows.shape[1]
        if minimums is not None:
            stored = shared_initializer(self.graph, f"{_name(site, scheme)}_{MINIMUMS}", minimums.values)
            MinimumNodes(self.graph, tape, site, scheme, minimums.lowest).add(given, scales, self._cast(stored, site))
        elif site.is_look_up and scheme.blocks(k) * scheme.block_size > k:
            self._cut_padding(tape, given, site)

    def keep(self, site: Site) -> None:
        """Leave a site in floating point, in the type that the graph computes in: a target may support no other."""
        name = f"{site.weight.name}_{element_name(site.dtype)}"
        value = shared_initializer(self.graph, name, as_type(site.matrix, site.dtype))
        site.node.replace_input_with(0 if site.is_look_up else 1, value)
        computed = site.node.outputs[0]
        if computed is not site.result:
            computed.type = ir.TensorType(site.dtype)
            ir.convenience.replace_all_uses_with(site.result, computed, replace_graph_outputs=True)

    def _initializers(self, site: Site, scheme: Scheme, made: Sequence[Expression]) -> list[ir.Value]:
        values = [
            shared_initializer(self.graph, f"{_name(site, scheme)}_{part}", expression)
            for part, expression in zip(PARTS, made, strict=False)
        ]
        scales = self._cast(values[SCALES], site)
        if scheme.two_level:
            scales = self._computed("Mul", [scales, self._cast(values[UNITS], site)], site, "in_units")
        return [values[WEIGHT], scales, *values[SCALES + 1 : UNITS]]

    def _cast(self, value: ir.Value, site: Site) -> ir.Value:
        """`value` in the type that the site computes in."""
        if value.dtype == site.dtype:
            return value
        return self._computed("Cast", [value], site, element_name(site.dtype), to=site.dtype)

    def _computed(
        self, operator: str, inputs: Sequence[ir.Value], site: Site, label: str, **attributes: ir.DataType
    ) -> ir.Value:
        """The result of a node that computes from constants, in the site's type and the first constant's shape.

        Sites that need the same result share it. label: the suffix of its name, after the first constant's name.
        """
        for user in inputs[0].consumers():
            made = user.outputs[0]
            if (user.op_type, tuple(user.inputs), made.dtype) == (operator, tuple(inputs), site.dtype):
                return made
        name = f"{inputs[0].name}_{label}"
        tape = Tape()
        made = tape.node(operator, inputs, name, site.dtype, inputs[0].shape, attributes, output=name)
        self.graph.insert_before(site.node, tape.nodes)
        return made

    def _cut_padding(self, tape: Tape, rows: ir.Value, site: Site) -> None:
        """Cut off the last columns of looked-up rows: they are padding of the last blocks."""
        rows.name = name = f"{site.result.name}_padded"
        bounds = [
            shared_initializer(self.graph, f"{name}/{label}", Array(np.array([value], np.int64)))
            for label, value in (("start", 0), ("stop", site.rows.shape[1]), ("axis", -1))
        ]
        tape.node("Slice", [rows, *bounds], f"{name}/Slice", site.dtype, marks=_marks(site))


def finish(model: ir.Model, kept: Sequence[Site | ExpertSite]) -> None:
    """Remove what no node uses any more, and list the matrices that stay in floating point in the model's metadata."""
    remove_unused(model)
    if kept:
        model.metadata_props[FLOAT_MATRICES] = json.dumps([site.name for site in kept])


def replace_site(graph: ir.Graph, site: Site, nodes: Sequence[ir.Node]) -> None:
    """Replace a site by `nodes`; the output of the last one replaces the site's result."""
    cast = site.result.producer()
    old = [site.node] if cast is None or cast is site.node else [site.node, cast]
    ir.convenience.replace_nodes_and_values(graph, site.node, old, nodes, [site.result], [nodes[-1].outputs[0]])


def _quantized(site: Site, scheme: Scheme) -> list[Expression]:
    """The outputs of `QuantizeBlocks` for a site's rows, which the writer makes."""
    importance = site.importance if scheme.method == "search" else None
    producer = QuantizeBlocks(site.rows, scheme, site.dtype, importance)
    return [Produced(producer, index) for index in range(len(producer.outputs))]


def operator_use(site: Site, scheme: Scheme) -> OperatorUse:
    """The node that replaces a site under a scheme, in the form that a target's table takes."""
    element = element_name(site.dtype)
    rest = () if scheme.symmetric else ("uint8",)
    inputs: tuple[str, ...] = (element, "uint8", element, *rest)
    if site.is_look_up:
        indices = site.activations.dtype or ir.DataType.INT64
        inputs = ("uint8", element_name(indices), element, *rest)
    return OperatorUse(MICROSOFT, _operator(site), 1, inputs, (element,), _attributes(site, scheme))


def _marks(site: Site) -> dict[str, str]:
    """The metadata of a site's node for the node that replaces it, which shows its scheme in its attributes."""
    return {key: value for key, value in site.node.metadata_props.items() if key != SCHEME}


def _operator(site: Site) -> str:
    return "GatherBlockQuantized" if site.is_look_up else PRODUCT


def _attributes(site: Site, scheme: Scheme) -> dict[str, int]:
    attributes = {"bits": scheme.bits, "block_size": scheme.block_size}
    if site.is_look_up:
        return {**attributes, "gather_axis": 0, "quantize_axis": 1}
    n, k = site.rows.shape
    return {"N": n, "K": k, **attributes}


def _name(site: Site, scheme: Scheme) -> str:
    """The name of a site's quantized weight: the weight's name with the scheme."""
    symmetry = "S" if scheme.symmetric else "A"
    return f"{site.weight.name}_Q{scheme.bits}{symmetry}{scheme.block_size}"


def quantized_parts(node: ir.Node) -> list[ir.Value]:
    """The initializers of the quantized matrix of a node."""
    matrix, graph = node.inputs[1], node.graph
    assert matrix is not None and isinstance(graph, ir.Graph)
    stem = (matrix.name or "").removesuffix(PARTS[WEIGHT])
    names = [f"{stem}{part}" for part in (*PARTS, MINIMUMS)]
    return [graph.initializers[name] for name in names if name in graph.initializers]


def is_quantized(graph: ir.Graph) -> bool:
    """Whether the graph has a node with a quantized matrix."""
    return any(node.op_type == PRODUCT for node in graph)
