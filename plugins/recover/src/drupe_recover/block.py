"""Block: one stage of a segment in torch, with what is trained of it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from drupe_blockquant.torch_products import Levels, Product
from drupe_layerwise import whole
from drupe_onnx import ir
from drupe_recover.attention import Unknown
from drupe_recover.experts import LOGITS, SCALES, Experts, X, expert_count
from drupe_recover.operators import run
from drupe_recover.stages import Stage, is_experts, is_product
from drupe_recover.trained import FLOATS, NORMS, Rows, Values, array_of, levels_of, read_once, scales_behind
from drupe_recover.training import Lesson, loss_of

Tensor: TypeAlias = Any  # of torch, which linters do not see


class Training(Enum):
    """What of a block is trained: all that only it reads, its experts alone, or a matrix that it shares alone."""

    ALL, EXPERTS, SHARED = range(3)


class Block:
    """The nodes of one stage of a segment.

    chosen: of nodes of which torch runs a part: the numbers of the experts, or of the rows of a product's matrix. The
    results of other experts are given, under the name that `others_of` says. training: what is trained; only matrices
    and norms that no other node reads, unless it is SHARED. Raises Unknown where nothing is trained.
    """

    def __init__(
        self,
        stage: Stage,
        device: torch.device,
        chosen: Mapping[ir.Node, Rows] = MappingProxyType({}),
        training: Training = Training.ALL,
    ) -> None:
        self.trained: list[Values] = []
        self.device = device
        self._wanted = stage.wanted
        self._chosen = chosen
        self._training = training
        self._constants: dict[str, Tensor] = {}
        self._levels: dict[ir.Node, Levels] = {}
        self._experts: dict[ir.Node, Experts] = {}
        self._values: dict[ir.Value, Values] = {}
        self._settled: dict[ir.Value, Tensor] | None = None
        for node in stage.nodes:
            self._take(node)
        if not self.trained:
            raise Unknown("a matrix that others share")

    @property
    def in_part(self) -> list[ir.Node]:
        """The nodes of which this block runs some experts only."""
        return [node for node in self._experts if node in self._chosen]

    def _take(self, node: ir.Node) -> None:
        """Read the quantized matrices of a node, and note what of it is trained."""
        rows = self._chosen.get(node)
        if is_product(node):
            self._levels[node] = levels_of(node, self.device, rows)
            if self._training is not Training.EXPERTS:
                self._train_scales(node.inputs[2], rows)
        if is_experts(node):
            rows = np.arange(expert_count(node)) if rows is None else rows
            self._experts[node] = Experts(node, rows, self.device)
            for place in SCALES:
                self._train_scales(node.inputs[place], rows)
        for place in NORMS.get(node.op_type, ()) if self._training is Training.ALL else ():
            weight = node.inputs[place] if len(node.inputs) > place else None
            if weight is not None and weight.is_initializer() and weight.dtype in FLOATS and read_once(weight):
                self._train(weight, Values.of_norm(weight, self.device))

    def _train_scales(self, scales: ir.Value | None, rows: Rows | None) -> None:
        stored = scales_behind(scales)
        if stored is not None and scales is not None and all(map(self._is_ours, stored)):
            self._train(scales, Values.of_scales(stored, self.device, rows))

    def _is_ours(self, stored: ir.Value) -> bool:
        return read_once(stored) != (self._training is Training.SHARED)

    def _train(self, value: ir.Value, values: Values) -> None:
        self._values[value] = values
        self.trained.append(values)

    def settle(self, settled: bool) -> None:
        """Compute with the values as the package will store them; or again with those that are trained."""
        self._settled = {value: each.settled()[0] for value, each in self._values.items()} if settled else None

    def __call__(self, given: Mapping[str, NDArray[Any]]) -> Tensor:
        """The sum of the values that come out: float32 [batch, tokens, features]."""
        known = self._known(given)
        return torch.stack([self._value(value, known) for value in self._wanted]).sum(0)

    def loss(self, lesson: Lesson) -> Tensor:
        return loss_of(self(lesson.given), self.target(lesson))

    def target(self, lesson: Lesson) -> Tensor:
        return self._tensor(lesson.target())

    def matrix(self, node: ir.Node) -> Tensor:
        """The values of a quantized matrix, or of the chosen rows of it."""
        levels = self._levels[node]
        scales = self._scales(node, 2, {}).reshape(levels.packed.shape[:2])
        return levels.matrix(scales, slice(None))

    def of_experts(self, node: ir.Node, given: Mapping[str, NDArray[Any]]) -> Tensor:
        """What the experts of a node that this block runs add to the node's result."""
        known = self._known(given)
        known.pop(others_of(node), None)
        return self._sum_of_experts(node, known)

    def _known(self, given: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        return {name: self._tensor(array) for name, array in given.items()}

    def _value(self, value: ir.Value, known: dict[str, Tensor]) -> Tensor:
        value = whole(value)
        name = value.name or ""
        if value in self._values:
            return self._values[value].now() if self._settled is None else self._settled[value]
        if name in known:
            return known[name]
        if value.is_initializer():
            return self._constant(value)
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
        if node in self._experts:
            return [self._sum_of_experts(node, known)]
        inputs = [
            None if value is None or _is_cache(node, place) else self._value(value, known)
            for place, value in enumerate(node.inputs)
        ]
        return run(node, inputs)

    def _product(self, node: ir.Node, known: dict[str, Tensor]) -> Tensor:
        levels = self._levels[node]
        scales = self._scales(node, 2, known).reshape(levels.packed.shape[:2])
        product: Tensor = Product.apply(self._value(_given(node, 0), known), scales, levels)
        bias = node.inputs[5] if len(node.inputs) > 5 else None
        return product if bias is None else product + self._value(bias, known)

    def _sum_of_experts(self, node: ir.Node, known: dict[str, Tensor]) -> Tensor:
        """The result of a node with experts, those included that are given."""
        x, logits = (self._value(_given(node, place), known) for place in (X, LOGITS))
        own = self._experts[node](x, logits, [self._scales(node, place, known) for place in SCALES])
        others = known.get(others_of(node))
        return own if others is None else own + others.reshape(own.shape)

    def _scales(self, node: ir.Node, place: int, known: dict[str, Tensor]) -> Tensor:
        """The scales of the rows, or of the experts, that torch runs."""
        value, rows = _given(node, place), self._chosen.get(node)
        scales = self._value(value, known)
        return scales if rows is None or value in self._values else scales[torch.from_numpy(rows)]

    def _constant(self, value: ir.Value) -> Tensor:
        """An initializer; of the head's own, only those of the chosen tokens."""
        name = value.name or ""
        if name not in self._constants:
            tensor = self._tensor(array_of(value))
            for node, rows in self._chosen.items():
                if is_product(node) and tensor.dim() and tensor.shape[-1] == node.attributes["N"].as_int():
                    tensor = tensor[..., torch.from_numpy(rows)]
            self._constants[name] = tensor
        return self._constants[name]

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array.astype("float32") if array.dtype.kind not in "iub" else array.copy())
        return tensor.to(self.device)


def others_of(node: ir.Node) -> str:
    """The name of what the experts make that a block does not run."""
    return f"{node.outputs[0].name}/others"


def _given(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    assert value is not None
    return value


def _is_cache(node: ir.Node, place: int) -> bool:
    """Whether an input of attention is a cache or a length, which whole sequences have no use for."""
    return node.op_type == "GroupQueryAttention" and place in (3, 4, 5, 6)
