"""The pass `extract-adapters`: takes LoRA out of a graph, as optional inputs and an .onnx_adapter file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from drupe.api import Context, Form, Model, ModelError, Notice, Pass, PassConfig, Record, counted

if TYPE_CHECKING:
    from drupe_onnx import Expression, OnnxPackage, ir
    from drupe_onnx.switching import AdaptedProduct

LORA = re.compile(r"(?P<module>.+?)[./]lora_(?P<part>[AB])([./_]|$)")
"""What programs call nodes and weights of LoRA: "/model/layers.0/q_proj/lora_A/default/MatMul"."""
PREFIXES = ("base_model.model.", "base_model.")
"""What peft puts before the names of the base model's modules."""
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"


class ExtractAdaptersConfig(PassConfig):
    """The settings of `extract-adapters`."""

    adapter: str = Field("adapter", pattern=f"^{NAME}$", description="the name that the adapter gets in the package")


class ExtractAdapters(Pass):
    """Makes the base model of a graph in which LoRA is part of the model, and the adapter beside it.

    Each product with a matrix of LoRA gets an optional input, whose default has the rank 0. Other nodes stay.
    """

    name = "extract-adapters"
    summary = "takes LoRA out of an ONNX graph: optional inputs, and a file with their values"
    revision = 1
    Config: ClassVar[type[PassConfig]] = ExtractAdaptersConfig
    requires = Form("onnx")
    ensures = Form("onnx")

    def run(self, model: Model, config: ExtractAdaptersConfig, context: Context) -> Model:
        from drupe_onnx import element_name, remove_unused
        from drupe_onnx.adapter_files import write_adapter
        from drupe_onnx.switching import ADAPTERS, FOLDER, SUFFIX, Switching

        package: OnnxPackage = model.payload
        if ADAPTERS in package.files:
            raise ModelError("the package has adapters already", where=model.location, cure="take them as they are")
        products = list(_products(package.component.graph, model))
        values = {
            name: tensor
            for each in products
            for name, tensor in ((each.place.inward, each.inward), (each.place.outward, each.outward))
        }
        elements = {element_name(each.dtype) for each in values.values()}
        if len(elements) > 1:
            raise ModelError(
                f"the adapter's matrices are of several types: {', '.join(sorted(elements))}",
                where=model.location,
                cure="export the model in one type",
            )
        for each in products:
            each.take_out()
        remove_unused(package.component)
        file = f"{FOLDER}/{config.adapter}{SUFFIX}"
        path = context.scratch / f"{config.adapter}{SUFFIX}"
        write_adapter(path, values)
        places = tuple(each.place for each in products)
        package.files[file] = path
        package.files[ADAPTERS] = Switching(elements.pop(), places, {config.adapter: file}, {}).content()
        modules = counted(len(places), "module")
        what = f"{modules} of LoRA became the adapter {config.adapter}; the graph is the base model"
        return model.noticed(Notice("adapter", "switched", what))


class _Pair(Record):
    """The two products of an adapter for one module, with their matrices as the nodes take them."""

    graph: ir.Graph
    place: AdaptedProduct
    first: ir.Node
    second: ir.Node
    inward: Expression
    outward: Expression

    def take_out(self) -> None:
        """Put a matrix of the rank 0 in the place of each."""
        import numpy as np

        from drupe_onnx import Array, initializer

        empty = {(self.place.inward, self.first): (self.inward.shape[0], 0)}
        empty[self.place.outward, self.second] = (0, self.outward.shape[1])
        for (name, node), shape in empty.items():
            value = initializer(name, Array(np.zeros(shape, self.inward.dtype.numpy())))
            if (old := self.graph.initializers.get(name)) is not None:
                old.name = f"{name}.taken_out"
            self.graph.register_initializer(value)
            node.replace_input_with(1, value)
        self._forget_rank(self.first.outputs[0])

    def _forget_rank(self, value: ir.Value) -> None:
        """The values between the two products had the adapter's rank as a size."""
        value.shape = None
        for node in value.consumers():
            if node is not self.second:
                for output in node.outputs:
                    self._forget_rank(output)


def _products(graph: ir.Graph, model: Model) -> Iterator[_Pair]:
    """The products of LoRA, by module. Raises ModelError where there are none, or only one of two."""
    from drupe_onnx import constant_of
    from drupe_onnx.switching import AdaptedProduct

    found: dict[str, dict[str, tuple[ir.Node, Expression]]] = {}
    for node in graph:
        if node.op_type != "MatMul" or (named := _named(node)) is None:
            continue
        matrix = constant_of(node.inputs[1])
        if matrix is not None and len(matrix.shape) == 2 and 0 not in matrix.shape:
            found.setdefault(named[0], {})[named[1]] = node, matrix
    if not found:
        raise ModelError(
            "the graph has no products with float matrices that are called lora_A and lora_B",
            where=model.location,
            cure="export the model with the adapter beside its base, before it is merged or quantized",
        )
    for module, pair in found.items():
        if len(pair) < 2:
            raise ModelError(
                f"of the adapter's two matrices of {module}, the graph has lora_{next(iter(pair))} only",
                where=model.location,
                cure="export the model again",
            )
        (first, inward), (second, outward) = pair["A"], pair["B"]
        place = AdaptedProduct(module, f"{module}.weight", (outward.shape[1], inward.shape[0]))
        yield _Pair(graph, place, first, second, inward, outward)


def _named(node: ir.Node) -> tuple[str, str] | None:
    """The module and the part of LoRA that a node's name tells, or that of its weight."""
    weight = node.inputs[1]
    for name in (weight.name if weight is not None else None, node.name):
        if name and (matched := LORA.match(name)):
            module = matched["module"].lstrip("/").replace("/", ".")
            module = next((module.removeprefix(each) for each in PREFIXES if module.startswith(each)), module)
            return module, matched["part"]
    return None
