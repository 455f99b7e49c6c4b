"""Rewriting: a site with float weights becomes one with quantized weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drupe.api import Capabilities, OperatorUse
from drupe_blockquant import Scheme
from drupe_nbits.expressions import PARTS, SCALES, UNITS, WEIGHT, QuantizeBlocks
from drupe_nbits.minimums import MinimumNodes
from drupe_nbits.sites import MICROSOFT, Site
from drupe_onnx import Array, Cast, Expression, Produced, Reshape, expression_of, initializer, ir
from drupe_onnx.checking import element_name

PRODUCT = "MatMulNBits"
MINIMUMS = "minimums"
"""How the initializer of a matrix's minimums is called, beside its PARTS."""
ACCURACY_LEVEL = "matmul_nbits_accuracy_level"
"""The trait of a target that says in which precision its MatMulNBits is fast."""


class Rewriter:
    """Rewrites the sites of one graph; equal weights under equal schemes share their initializers.

    accuracy_level: of MatMulNBits; the one that the target is fast with where that is None.
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
        minimums: Expression | None = None,
    ) -> None:
        """Quantize one site under a scheme that the target serves it with.

        ready: what `QuantizeBlocks` would make, where it was made elsewhere; scales of another type than the site's go
        behind a Cast. By default the writer makes it of the site's rows. minimums: [N, blocks], of values that are
        level * scale + minimum; the scheme is symmetric then, its blocks fit, and `takes_minimums` holds.
        """
        made = list(ready) if ready is not None else _quantized(site, scheme)
        weights = self._initializers(site, scheme, made)
        node = self._look_up(site, scheme, made, weights) if site.is_look_up else self._product(site, scheme, weights)
        replace_site(self.graph, site, [node, *self._behind(node, site, scheme, weights[SCALES], minimums)])

    def _product(self, site: Site, scheme: Scheme, weights: Sequence[ir.Value]) -> ir.Node:
        """A matrix product becomes MatMulNBits; a bias that it had goes along."""
        attributes = _attributes(site, scheme)
        if self.accuracy_level is not None:
            attributes["accuracy_level"] = self.accuracy_level
        inputs: list[ir.Value | None] = [site.activations, *weights]
        if site.bias is not None:
            inputs += [None] * (5 - len(inputs)) + [site.bias]
        return self._node(inputs, site, attributes)

    def _look_up(self, site: Site, scheme: Scheme, made: Sequence[Expression], weights: Sequence[ir.Value]) -> ir.Node:
        """A look-up becomes GatherBlockQuantized."""
        n, blocks, width = made[WEIGHT].shape
        table = self._initializer(f"{_name(site, scheme)}_rows", Reshape(made[WEIGHT], (n, blocks * width)))
        return self._node([table, site.activations, *weights[SCALES:]], site, _attributes(site, scheme))

    def _behind(
        self, node: ir.Node, site: Site, scheme: Scheme, scales: ir.Value, minimums: Expression | None
    ) -> list[ir.Node]:
        """What has to follow the node in a site's place until there is what the site gave."""
        if minimums is not None:
            stored = self._initializer(f"{_name(site, scheme)}_{MINIMUMS}", minimums)
            nodes = MinimumNodes(site, scheme, lambda name, value: self._initializer(name, Array(value)))
            return nodes.behind(node, scales, self._cast(stored, site))
        k = site.rows.shape[1]
        padded = site.is_look_up and scheme.blocks(k) * scheme.block_size > k
        return [self._without_padding(node, site)] if padded else []

    def keep(self, site: Site) -> None:
        """Leave a site in floating point, in the type that the graph computes in: a target may serve no other."""
        matrix = site.matrix if site.matrix.dtype == site.dtype else Cast(site.matrix, site.dtype)
        value = self._initializer(f"{site.weight.name}_{element_name(site.dtype)}", matrix)
        site.node.replace_input_with(0 if site.is_look_up else 1, value)
        computed = site.node.outputs[0]
        if computed is not site.result:
            computed.type = ir.TensorType(site.dtype)
            ir.convenience.replace_all_uses_with(site.result, computed, replace_graph_outputs=True)

    def _initializers(self, site: Site, scheme: Scheme, made: Sequence[Expression]) -> list[ir.Value]:
        values = [
            self._initializer(f"{_name(site, scheme)}_{part}", expression)
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
        """What a node makes of constants, in the type that the site computes in and the first one's shape.

        Sites that want the same share it. label: what its name has behind the first one's.
        """
        for user in inputs[0].consumers():
            made = user.outputs[0]
            if (user.op_type, tuple(user.inputs), made.dtype) == (operator, tuple(inputs), site.dtype):
                return made
        node = ir.node(operator, inputs, attributes, name=f"{inputs[0].name}_{label}")
        made = node.outputs[0]
        made.name, made.type, made.shape = node.name, ir.TensorType(site.dtype), inputs[0].shape
        self.graph.insert_before(site.node, node)
        return made

    def _initializer(self, name: str, expression: Expression) -> ir.Value:
        """The initializer of that name and content: an equal one is used again, another content gets another name."""
        wanted, number = name, 1
        while (existing := self.graph.initializers.get(name)) is not None:
            if expression_of(existing) == expression:
                return existing
            number += 1
            name = f"{wanted}_{number}"
        value = initializer(name, expression)
        self.graph.register_initializer(value)
        return value

    def _node(self, inputs: Sequence[ir.Value | None], site: Site, attributes: dict[str, int]) -> ir.Node:
        return ir.Node(
            MICROSOFT,
            _operator(site),
            inputs,
            [ir.AttrInt64(name, value) for name, value in attributes.items()],
            name=site.node.name,
            metadata_props=dict(site.node.metadata_props),
        )

    def _without_padding(self, node: ir.Node, site: Site) -> ir.Node:
        """Cuts off the last columns of a looked-up row, which fill up its last block."""
        name = f"{site.result.name}_padded"
        node.outputs[0].name, node.outputs[0].type = name, ir.TensorType(site.dtype)
        bounds = [
            self._initializer(f"{name}/{label}", Array(np.array([value], np.int64)))
            for label, value in (("start", 0), ("stop", site.rows.shape[1]), ("axis", -1))
        ]
        metadata = dict(site.node.metadata_props)
        return ir.Node("", "Slice", [node.outputs[0], *bounds], name=f"{name}/Slice", metadata_props=metadata)


def replace_site(graph: ir.Graph, site: Site, nodes: Sequence[ir.Node]) -> None:
    """Put `nodes` in a site's place; the last one gives what the graph goes on with."""
    old, new = site.result, nodes[-1].outputs[0]
    new.name, new.type, new.shape = old.name, old.type, old.shape
    graph.insert_before(site.node, nodes)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    if (cast := old.producer()) is not None and cast is not site.node:
        graph.remove(cast, safe=True)
    graph.remove(site.node, safe=True)


def _quantized(site: Site, scheme: Scheme) -> list[Expression]:
    """What the writer makes of a site's rows: the outputs of `QuantizeBlocks`."""
    importance = site.importance if scheme.method == "search" else None
    producer = QuantizeBlocks(site.rows, scheme, site.dtype, importance)
    return [Produced(producer, index) for index in range(len(producer.outputs))]


def operator_use(site: Site, scheme: Scheme) -> OperatorUse:
    """The node that a site becomes under a scheme, as a target's table sees it."""
    element = element_name(site.dtype)
    rest = () if scheme.symmetric else ("uint8",)
    inputs: tuple[str, ...] = (element, "uint8", element, *rest)
    if site.is_look_up:
        indices = site.activations.dtype or ir.DataType.INT64
        inputs = ("uint8", element_name(indices), element, *rest)
    return OperatorUse(MICROSOFT, _operator(site), 1, inputs, (element,), _attributes(site, scheme))


def _operator(site: Site) -> str:
    return "GatherBlockQuantized" if site.is_look_up else PRODUCT


def _attributes(site: Site, scheme: Scheme) -> dict[str, int]:
    attributes = {"bits": scheme.bits, "block_size": scheme.block_size}
    if site.is_look_up:
        return {**attributes, "gather_axis": 0, "quantize_axis": 1}
    n, k = site.rows.shape
    return {"N": n, "K": k, **attributes}


def _name(site: Site, scheme: Scheme) -> str:
    """A name for what is made of a site's weight: its own, with the scheme."""
    symmetry = "S" if scheme.symmetric else "A"
    return f"{site.weight.name}_Q{scheme.bits}{symmetry}{scheme.block_size}"


def quantized_parts(node: ir.Node) -> list[ir.Value]:
    """The initializers that hold the matrix of a node which multiplies with blocks of n bits."""
    matrix, graph = node.inputs[1], node.graph
    assert matrix is not None and isinstance(graph, ir.Graph)
    stem = (matrix.name or "").removesuffix(PARTS[WEIGHT])
    names = [f"{stem}{part}" for part in (*PARTS, MINIMUMS)]
    return [graph.initializers[name] for name in names if name in graph.initializers]


def is_quantized(graph: ir.Graph) -> bool:
    """Whether anything is multiplied with blocks of n bits."""
    return any(node.op_type == PRODUCT for node in graph)


def remove_unused(graph: ir.Graph) -> None:
    """Drop casts and initializers that nothing uses any more."""
    for node in reversed(graph):
        if node.op_type == "Cast" and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            graph.remove(node, safe=True)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        if not graph.initializers[name].is_graph_output():
            del graph.initializers[name]
