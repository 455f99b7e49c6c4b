"""GraphBuilder: collects the nodes and initializers of one graph, with the type and shape of every value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from drupe_model_builder.dimensions import Dims, dims
from drupe_model_builder.precision import Precision
from drupe_onnx import (
    BLOCK,
    MICROSOFT,
    ROLE,
    Array,
    Capabilities,
    Expression,
    OperatorUse,
    Tape,
    as_type,
    element_name,
    initializer,
    ir,
)
from drupe_onnx import Transpose as TransposeWeight
from drupe_onnx.switching import AdaptedProduct

OPSETS = {"": 21, MICROSOFT: 1}
IR_VERSION = 10


class GraphBuilder:
    """A graph that is being built for a target, in a precision."""

    def __init__(
        self,
        weights: Mapping[str, Expression],
        precision: Precision,
        capabilities: Capabilities,
        adapted: Collection[str] = (),
    ) -> None:
        """adapted: the weights to which adapters add something at run time."""
        self.weights = weights
        self.adapted = adapted
        self.adapted_products: dict[str, AdaptedProduct] = {}
        """The products to which adapters add something, by name. Their tensors have the names of `weights`."""
        self.precision = precision
        self.capabilities = capabilities
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self._tape = Tape()
        self._initializers: dict[str, ir.Value] = {}
        self._casts: dict[str, ir.Value] = {}
        self._block: int | None = None

    @property
    def dtype(self) -> ir.DataType:
        """The element type that the graph computes in."""
        return self.precision.activations

    def serves(
        self,
        operator: str,
        *inputs: ir.DataType | None,
        domain: str = "",
        outputs: Sequence[ir.DataType] = (),
        **attributes: Any,
    ) -> bool:
        """Whether the target has a kernel for a node with inputs and outputs of these types; None: left out."""
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
    def block(self, number: int | None) -> Iterator[None]:
        """Nodes made inside the `with` block belong to decoder block `number`; None: to no block."""
        before, self._block = self._block, number
        try:
            yield
        finally:
            self._block = before

    def input(self, name: str, dtype: ir.DataType, shape: Dims) -> ir.Value:
        value = ir.val(name, dtype, shape)
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
        """Add a node with one output of `dtype`, by default that of the activations.

        An operator of ONNX that the target has in float32 only stands between two Casts.
        """
        marks, kind = self._marks(role), dtype or self.dtype
        widens = role is None and not domain and self._wants_float32(operator, inputs, kind, attributes)
        if widens:
            inputs = [self._cast(value, f"{name}/Wide{place}") for place, value in enumerate(inputs)]
        made = ir.DataType.FLOAT if widens and kind == self.dtype else kind
        out = self._tape.node(operator, inputs, name, made, shape, attributes, domain=domain, marks=marks)
        return (
            out
            if made == kind
            else self._tape.node("Cast", [out], f"{name}/Narrow", kind, shape, {"to": kind}, marks=marks)
        )

    def _wants_float32(
        self, operator: str, inputs: Sequence[ir.Value | None], kind: ir.DataType, attributes: Mapping[str, Any]
    ) -> bool:
        """Whether the target has an operator for float32, and not for the type of the activations."""
        types = [None if value is None else value.dtype for value in inputs]
        if self.dtype == ir.DataType.FLOAT or self.dtype not in types:
            return False
        wide = [ir.DataType.FLOAT if each == self.dtype else each for each in types]
        made = ir.DataType.FLOAT if kind == self.dtype else kind
        served = self.serves(operator, *types, outputs=[kind], **attributes)
        return not served and self.serves(operator, *wide, outputs=[made], **attributes)

    def _cast(self, value: ir.Value | None, name: str) -> ir.Value | None:
        """The value in float32 where it is of the activations' type."""
        if value is None or value.dtype != self.dtype:
            return value
        kind = ir.DataType.FLOAT
        return self._tape.node("Cast", [value], name, kind, dims(value), {"to": kind}, marks=self._marks(None))

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
        """Add a node with several outputs, each given by type and shape; None stands for an output left out."""
        marks = self._marks(role)
        return self._tape.node_of_several(operator, inputs, name, outputs, attributes, domain=domain, marks=marks)

    def _marks(self, role: str | None) -> dict[str, str]:
        """The metadata of a node."""
        marks = {BLOCK: str(self._block)} if self._block is not None else {}
        return {**marks, ROLE: role} if role else marks

    def integers(self, values: int | Sequence[int], dtype: type[np.integer[Any]] = np.int64) -> ir.Value:
        """A constant of whole numbers; equal constants share one initializer."""
        array = np.array(values, dtype)
        return self.initializer(
            f"constant/{array.dtype}/{'x'.join(map(str, array.reshape(-1)))}/{array.ndim}", Array(array)
        )

    def number(self, value: float, dtype: ir.DataType | None = None) -> ir.Value:
        """A scalar, by default in the activations' type."""
        kind = dtype or self.dtype
        return self.initializer(f"constant/{element_name(kind)}/{value}", Array(np.array(value, kind.numpy())))

    def initializer(self, name: str, expression: Expression) -> ir.Value:
        """The initializer of this name, made when it is first needed."""
        if name not in self._initializers:
            self._initializers[name] = initializer(name, expression)
        return self._initializers[name]

    def vector(self, name: str, expression: Expression | None = None) -> ir.Value:
        """A norm's weight or a bias, in the activations' type: it is too small for another type to save memory."""
        return self.initializer(name, as_type(expression or self.weights[name], self.dtype))

    def wide(self, name: str, expression: Expression | None = None) -> ir.Value:
        """A vector of the checkpoint in float32, for operators that want it whatever the activations are."""
        return self.initializer(f"{name}.float32", as_type(expression or self.weights[name], ir.DataType.FLOAT))

    def matrix(self, name: str, expression: Expression | None = None, *, transposed: bool = False) -> ir.Value:
        """A matrix as it is stored; see `computable`. transposed: [N, K] of the checkpoint as [K, N] for MatMul."""
        source = expression or self.weights[name]
        stored = as_type(source, self.precision.stored(source.dtype))
        return self.initializer(name, TransposeWeight(stored) if transposed else stored)

    def computable(self, value: ir.Value) -> ir.Value:
        """`value` in the activations' type, with a Cast if it is stored in another type; all users share one Cast."""
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
            nodes=self._tape.nodes,
            initializers=list(self._initializers.values()),
            opset_imports=dict(OPSETS),
            name=name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="drupe-model-builder")
