"""GraphBuilder: collects nodes and initializers of one graph, with the type and shape of every value known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from drupe.api import Capabilities, OperatorUse
from drupe_model_builder.precision import Precision
from drupe_onnx import BLOCK, ROLE, Array, Expression, initializer, ir
from drupe_onnx import Cast as CastWeight
from drupe_onnx import Transpose as TransposeWeight
from drupe_onnx.checking import element_name

OPSETS = {"": 21, "com.microsoft": 1}
MICROSOFT = "com.microsoft"
IR_VERSION = 10

Dims = Sequence[int | str]


class GraphBuilder:
    """One graph in the making, for a target with certain capabilities, in a certain precision."""

    def __init__(self, weights: Mapping[str, Expression], precision: Precision, capabilities: Capabilities) -> None:
        self.weights = weights
        self.precision = precision
        self.capabilities = capabilities
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}
        self._casts: dict[str, ir.Value] = {}
        self._block: int | None = None

    @property
    def dtype(self) -> ir.DataType:
        """What the graph computes in."""
        return self.precision.activations

    def serves(
        self,
        operator: str,
        *inputs: ir.DataType | None,
        domain: str = "",
        outputs: Sequence[ir.DataType] = (),
        **attributes: Any,
    ) -> bool:
        """Whether the target has a kernel for a node with these types of inputs and outputs; None is one left out."""
        use = OperatorUse(
            domain,
            operator,
            OPSETS[domain],
            tuple("" if each is None else element_name(each) for each in inputs),
            tuple(element_name(each) for each in outputs),
            attributes,
        )
        return self.capabilities.serves(use)

    @contextmanager
    def block(self, number: int) -> Iterator[None]:
        """Nodes made within belong to decoder block `number`."""
        self._block = number
        try:
            yield
        finally:
            self._block = None

    def input(self, name: str, dtype: ir.DataType, shape: Dims) -> ir.Value:
        value = _value(name, dtype, shape)
        self.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str) -> None:
        value.name = name
        self.outputs.append(value)

    def node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        shape: Dims,
        *,
        dtype: ir.DataType | None = None,
        domain: str = "",
        role: str | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """Add a node with one output of `dtype`, by default that of the activations."""
        return self.nodes(
            operator, inputs, name, [(dtype or self.dtype, shape)], domain=domain, role=role, **attributes
        )[0]

    def nodes(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        outputs: Sequence[tuple[ir.DataType, Dims] | None],
        *,
        domain: str = "",
        role: str | None = None,
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """Add a node with several outputs, each given by type and shape; None is one left out."""
        values = [
            _value(f"{name}/output_{place}", *each) if each else ir.Value(name="") for place, each in enumerate(outputs)
        ]
        marks = {BLOCK: str(self._block)} if self._block is not None else {}
        if role:
            marks[ROLE] = role
        node = ir.Node(
            domain,
            operator,
            inputs,
            [_attribute(key, value) for key, value in attributes.items()],
            outputs=values,
            name=name,
            metadata_props=marks,
        )
        self._nodes.append(node)
        return values

    def integers(self, values: int | Sequence[int], dtype: type[np.integer[Any]] = np.int64) -> ir.Value:
        """A constant of whole numbers; equal ones are one initializer."""
        array = np.array(values, dtype)
        return self.initializer(
            f"constant/{array.dtype}/{'x'.join(map(str, array.reshape(-1)))}/{array.ndim}", Array(array)
        )

    def number(self, value: float, dtype: ir.DataType | None = None) -> ir.Value:
        """A scalar, by default in the activations' type."""
        kind = dtype or self.dtype
        return self.initializer(f"constant/{element_name(kind)}/{value}", Array(np.array(value, kind.numpy())))

    def initializer(self, name: str, expression: Expression) -> ir.Value:
        """The initializer of that name, made when it is first asked for."""
        if name not in self._initializers:
            self._initializers[name] = initializer(name, expression)
        return self._initializers[name]

    def vector(self, name: str, expression: Expression | None = None) -> ir.Value:
        """A norm's weight or a bias, in the activations' type: too small for another to save anything."""
        return self.initializer(name, cast(expression or self.weights[name], self.dtype))

    def matrix(self, name: str, expression: Expression | None = None, *, transposed: bool = False) -> ir.Value:
        """A matrix as it is stored; see `computable`. transposed: [N, K] of the checkpoint as [K, N] for MatMul."""
        source = expression or self.weights[name]
        stored = cast(source, self.precision.stored(source.dtype))
        return self.initializer(name, TransposeWeight(stored) if transposed else stored)

    def computable(self, value: ir.Value) -> ir.Value:
        """`value` in the activations' type, by a Cast where it is stored in another; one Cast serves all its users."""
        if value.dtype == self.dtype:
            return value
        name = f"{value.name}/Cast"
        if name not in self._casts:
            self._casts[name] = self.node("Cast", [value], name, dims(value), to=self.dtype)
        return self._casts[name]

    def model(self, name: str) -> ir.Model:
        graph = ir.Graph(
            self.inputs,
            self.outputs,
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            opset_imports=dict(OPSETS),
            name=name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="drupe-model-builder")


def cast(expression: Expression, dtype: ir.DataType) -> Expression:
    """`expression` in another type, itself where it has that type."""
    return expression if expression.dtype == dtype else CastWeight(expression, dtype)


def _attribute(name: str, value: Any) -> ir.Attr:
    if isinstance(value, ir.DataType):
        return ir.AttrInt64(name, int(value))
    if isinstance(value, int):
        return ir.AttrInt64(name, value)
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if isinstance(value, str):
        return ir.AttrString(name, value)
    return ir.AttrInt64s(name, tuple(value))


def _value(name: str, dtype: ir.DataType, shape: Dims) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def dims(value: ir.Value) -> list[int | str]:
    assert value.shape is not None
    return [each if isinstance(each, int) else str(each.value) for each in value.shape]
