"""Rewriting: a site with float weights becomes one with quantized weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drupe.api import OperatorUse
from drupe_blockquant import Scheme
from drupe_onnx import Array, Cast, Expression, Produced, Reshape, expression_of, initializer, ir
from drupe_onnx.checking import element_name
from drupe_quant_rtn.expressions import SCALES, WEIGHT, ZERO_POINTS, QuantizeBlocks
from drupe_quant_rtn.sites import MICROSOFT, Site


class Rewriter:
    """Rewrites the sites of one graph; equal weights under equal schemes share their initializers."""

    def __init__(self, graph: ir.Graph, accuracy_level: int | None) -> None:
        self.graph = graph
        self.accuracy_level = accuracy_level
        graph.opset_imports.setdefault(MICROSOFT, 1)

    def rewrite(self, site: Site, scheme: Scheme) -> None:
        """Quantize one site under a scheme that the target serves it with."""
        if site.is_look_up:
            self._look_up(site, scheme)
        else:
            self._product(site, scheme)

    def _product(self, site: Site, scheme: Scheme) -> None:
        """A matrix product becomes MatMulNBits; a bias that it had goes along."""
        producer = QuantizeBlocks(site.rows, scheme, site.dtype)
        attributes = _attributes(site, scheme)
        if self.accuracy_level is not None:
            attributes["accuracy_level"] = self.accuracy_level
        weights = [self._output(site, producer, WEIGHT), *self._scaling(site, producer)]
        inputs: list[ir.Value | None] = [site.activations, *weights]
        if site.bias is not None:
            inputs += [None] * (5 - len(inputs)) + [site.bias]
        self._replace(site, self._node(inputs, site, attributes))

    def _look_up(self, site: Site, scheme: Scheme) -> None:
        """A look-up becomes GatherBlockQuantized."""
        producer = QuantizeBlocks(site.rows, scheme, site.dtype)
        n, blocks, width = producer.outputs[WEIGHT].shape
        table = self._initializer(
            f"{_name(site, scheme)}_rows", Reshape(Produced(producer, WEIGHT), (n, blocks * width))
        )
        inputs = [table, site.activations, *self._scaling(site, producer)]
        node = self._node(inputs, site, _attributes(site, scheme))
        self._replace(site, node, padding=blocks * scheme.block_size - site.rows.shape[1])

    def keep(self, site: Site) -> None:
        """Leave a site in floating point, in the type that the graph computes in: a target may serve no other."""
        matrix = site.matrix if site.matrix.dtype == site.dtype else Cast(site.matrix, site.dtype)
        value = self._initializer(f"{site.weight.name}_{element_name(site.dtype)}", matrix)
        site.node.replace_input_with(0 if site.is_look_up else 1, value)
        computed = site.node.outputs[0]
        if computed is not site.result:
            computed.type = ir.TensorType(site.dtype)
            ir.convenience.replace_all_uses_with(site.result, computed, replace_graph_outputs=True)

    def _scaling(self, site: Site, producer: QuantizeBlocks) -> list[ir.Value]:
        outputs = [SCALES] if producer.scheme.symmetric else [SCALES, ZERO_POINTS]
        return [self._output(site, producer, index) for index in outputs]

    def _output(self, site: Site, producer: QuantizeBlocks, index: int) -> ir.Value:
        name = f"{_name(site, producer.scheme)}_{producer.outputs[index].name}"
        return self._initializer(name, Produced(producer, index))

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

    def _replace(self, site: Site, node: ir.Node, padding: int = 0) -> None:
        """Put `node` in the site's place; `padding` last columns of its output are cut off."""
        old = site.result
        nodes = [node]
        if padding:
            nodes.append(self._without_padding(node, site))
        new = nodes[-1].outputs[0]
        new.name, new.type, new.shape = old.name, old.type, old.shape
        self.graph.insert_before(site.node, nodes)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        if (cast := old.producer()) is not None and cast is not site.node:
            self.graph.remove(cast, safe=True)
        self.graph.remove(site.node, safe=True)

    def _without_padding(self, node: ir.Node, site: Site) -> ir.Node:
        name = f"{site.result.name}_padded"
        node.outputs[0].name, node.outputs[0].type = name, ir.TensorType(site.dtype)
        bounds = [
            self._initializer(f"{name}/{label}", Array(np.array([value], np.int64)))
            for label, value in (("start", 0), ("stop", site.rows.shape[1]), ("axis", -1))
        ]
        metadata = dict(site.node.metadata_props)
        return ir.Node("", "Slice", [node.outputs[0], *bounds], name=f"{name}/Slice", metadata_props=metadata)


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
    return "GatherBlockQuantized" if site.is_look_up else "MatMulNBits"


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
