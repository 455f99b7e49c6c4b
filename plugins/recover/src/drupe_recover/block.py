"""Block: one decoder block in torch, with what is trained of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray

from drupe_blockquant.torch_products import Levels, Product
from drupe_layerwise import Segment, hidden_states, nodes_behind, whole
from drupe_onnx import LAST_TOKEN, MICROSOFT, ROLE, ir
from drupe_recover.attention import Unknown
from drupe_recover.operators import OPERATORS, run
from drupe_recover.trained import (
    FLOATS,
    NORMS,
    Values,
    array_of,
    levels_of,
    read_once,
    scales_behind,
)

Tensor: TypeAlias = Any  # of torch, which linters do not see
PRODUCT = "MatMulNBits"
EXPERTS = ("MoE", "QMoE")


class Block:
    """The nodes that make the hidden states of a segment, or those of them that torch runs here.

    In a block with experts, this is the state between attention and experts. names: of these hidden states.
    without: the operator that the others need, "" where they are all here. Raises Unknown where none is here.
    """

    def __init__(self, segment: Segment, device: torch.device) -> None:
        self.trained: list[Values] = []
        self.without = ""
        self._device = device
        made = {whole(value).name or "": whole(value) for node in segment.nodes for value in node.outputs}
        self._wanted = [made[name] for name in hidden_states(segment) if self._runs(made[name], segment)]
        self.names = [value.name or "" for value in self._wanted]
        if not self._wanted:
            raise Unknown(self.without)
        self._constants: dict[str, Tensor] = {}
        self._levels: dict[ir.Node, Levels] = {}
        self._values: dict[ir.Value, Values] = {}
        self._settled: dict[ir.Value, Tensor] | None = None
        for node in _nodes(self._wanted, segment):
            self._take(node)
        if not self.trained:
            raise Unknown(self.without or "a matrix that others share")

    def _runs(self, value: ir.Value, segment: Segment) -> bool:
        """Whether torch runs all nodes of the segment that make a value; notes an operator that it does not run."""
        unknown = [node.op_type for node in _nodes([value], segment) if not _is_known(node)]
        experts = (each for each in unknown if each in EXPERTS)  # they say more than the nodes of their router
        self.without = next(experts, unknown[0]) if unknown else self.without
        return not unknown

    def _take(self, node: ir.Node) -> None:
        """Read the quantized matrix of a node, and note what of it is trained."""
        if (node.domain, node.op_type) == (MICROSOFT, PRODUCT):
            self._levels[node] = levels_of(node, self._device)
            stored = scales_behind(node.inputs[2])
            if stored is not None and all(map(read_once, stored)) and node.inputs[2] is not None:
                self._train(node.inputs[2], Values.of_scales(stored, self._device))
        for place in NORMS.get(node.op_type, ()):
            weight = node.inputs[place] if len(node.inputs) > place else None
            if weight is not None and weight.is_initializer() and weight.dtype in FLOATS and read_once(weight):
                self._train(weight, Values.of_norm(weight, self._device))

    def _train(self, value: ir.Value, values: Values) -> None:
        self._values[value] = values
        self.trained.append(values)

    def settle(self, settled: bool) -> None:
        """Compute with the values as the package will store them; or again with those that are trained."""
        self._settled = {value: each.settled()[0] for value, each in self._values.items()} if settled else None

    def __call__(self, given: Mapping[str, NDArray[Any]]) -> Tensor:
        """The sum of the hidden states that come out: float32 [batch, tokens, features]."""
        known: dict[str, Tensor] = {name: self._tensor(array) for name, array in given.items()}
        return torch.stack([self._value(value, known) for value in self._wanted]).sum(0)

    def _value(self, value: ir.Value, known: dict[str, Tensor]) -> Tensor:
        value = whole(value)
        name = value.name or ""
        if value in self._values:
            return self._values[value].now() if self._settled is None else self._settled[value]
        if name in known:
            return known[name]
        if value.is_initializer():
            if name not in self._constants:
                self._constants[name] = self._tensor(array_of(value))
            return self._constants[name]
        node = value.producer()
        if node is None:
            raise Unknown(f"the input '{name}'")
        for output, tensor in zip(node.outputs, self._outputs(node, known), strict=False):
            known[output.name or ""] = tensor
        if name not in known:
            raise Unknown(f"{node.op_type} with further outputs")
        return known[name]

    def _outputs(self, node: ir.Node, known: dict[str, Tensor]) -> Any:
        if node in self._levels:
            return [self._product(node, known)]
        inputs = [
            None if value is None or _is_cache(node, place) else self._value(value, known)
            for place, value in enumerate(node.inputs)
        ]
        return run(node, inputs)

    def _product(self, node: ir.Node, known: dict[str, Tensor]) -> Tensor:
        x, scales = node.inputs[0], node.inputs[2]
        assert x is not None and scales is not None
        levels = self._levels[node]
        product: Tensor = Product.apply(
            self._value(x, known), self._value(scales, known).reshape(levels.packed.shape[:2]), levels
        )
        bias = node.inputs[5] if len(node.inputs) > 5 else None
        return product if bias is None else product + self._value(bias, known)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array.astype("float32") if array.dtype.kind not in "iub" else array.copy())
        return tensor.to(self._device)


def _nodes(values: Sequence[ir.Value], segment: Segment) -> list[ir.Node]:
    """The nodes of a segment that values are made by, in the graph's order."""
    behind = nodes_behind(values)
    return [node for node in segment.nodes if node in behind]


def _is_known(node: ir.Node) -> bool:
    """Whether torch runs a node. Nodes that drop all tokens but the last are passed over."""
    return node.metadata_props.get(ROLE) == LAST_TOKEN or (node.domain, node.op_type) in {
        *OPERATORS,
        (MICROSOFT, PRODUCT),
    }


def _is_cache(node: ir.Node, place: int) -> bool:
    """Whether an input of attention is a cache or a length, which whole sequences have no use for."""
    return node.op_type == "GroupQueryAttention" and place in (3, 4, 5, 6)
