"""Experts: some experts of one node in torch, each on the rows that the router sends to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

from drupe_blockquant.torch_products import Levels, Product
from drupe_layerwise import Routing
from drupe_onnx import ir
from drupe_recover.attention import Unknown
from drupe_recover.operators import integer, number
from drupe_recover.trained import Rows, array_of, floats_of, levels_with

Tensor: TypeAlias = Any  # of torch, which linters do not see
QUANTIZED = "QMoE"
X, LOGITS = 0, 1
SCALES = (3, 6)
"""The places of the scales of both matrices. Levels lie before them, biases after them."""
ZERO_POINTS = (11, 12)
_THIRD = range(8, 11)
"""The places of a third matrix, which is not here."""
FLOAT, COPIES = 4, 8
"""Bytes of a float, and how many floats training holds for each scale: values, gradients, and AdamW's state."""


class Experts:
    """Some experts of a node. numbers: which; None for all. Raises Unknown for a node that is not known."""

    def __init__(self, node: ir.Node, numbers: Rows, device: torch.device) -> None:
        routing, activation = Routing.of(node), activation_of(node)
        if routing is None or activation is None or any(_input(node, place) is not None for place in _THIRD):
            raise Unknown(f"{node.op_type} with experts of another kind")
        self.numbers = numbers
        self._routing, self._activation = routing, activation
        self._levels = [self._levels_of(node, place, device) for place in range(2)]
        self._biases = [
            None if bias is None else floats_of(bias, device, numbers)
            for bias in (_input(node, place + 1) for place in SCALES)
        ]

    def __call__(self, x: Tensor, logits: Tensor, scales: Sequence[Tensor]) -> Tensor:
        """The sum of these experts' results, with their weights. scales: of both matrices, [experts, N, blocks]."""
        rows, weights = x.flatten(0, -2), self._weights(logits.flatten(0, -2))
        result = torch.zeros_like(rows)
        for place, expert in enumerate(self.numbers.tolist()):
            own = weights[:, expert].nonzero()[:, 0]
            if len(own):
                inner = self._activation(self._product(rows[own], 0, place, scales))
                outer = self._product(inner, 1, place, scales) * weights[own, expert, None]
                result = result.index_add(0, own, outer)
        return result.reshape(x.shape)

    def _weights(self, logits: Tensor) -> Tensor:
        """Each row's weights [rows, experts]: zero for experts that are not chosen."""
        shares = logits.softmax(-1)
        places = logits.argsort(dim=-1, descending=True, stable=True)[:, : self._routing.chosen]
        weights = torch.zeros_like(shares).scatter(-1, places, shares.gather(-1, places))
        return weights / weights.sum(-1, keepdim=True) if self._routing.normalised else weights

    def _product(self, x: Tensor, matrix: int, place: int, scales: Sequence[Tensor]) -> Tensor:
        product = Product.apply(
            x, scales[matrix][place].reshape(self._levels[matrix][place].packed.shape[:2]), self._levels[matrix][place]
        )
        bias = self._biases[matrix]
        return product if bias is None else product + bias[place]

    def _levels_of(self, node: ir.Node, matrix: int, device: torch.device) -> list[Levels]:
        """The levels of one of the matrices, expert by expert."""
        packed, zeros = _input(node, SCALES[matrix] - 1), _input(node, ZERO_POINTS[matrix])
        assert packed is not None
        bits, blocks = integer(node, "expert_weight_bits", 4), self._blocks(node, matrix)
        held = torch.from_numpy(array_of(packed, self.numbers)).to(device)
        points = None if zeros is None else array_of(zeros, self.numbers)
        return [
            levels_with(
                each.reshape(len(each), blocks, -1),
                None if points is None else points[place],
                bits,
                each.shape[-1] * 8 // bits,
            )
            for place, each in enumerate(held)
        ]

    def _blocks(self, node: ir.Node, matrix: int) -> int:
        """How many scales a row of a matrix has."""
        scales = _input(node, SCALES[matrix])
        assert scales is not None and scales.shape is not None
        shape = scales.shape.numpy()
        return int(shape[2]) if len(shape) == 3 else 1


def expert_count(node: ir.Node) -> int:
    packed = _input(node, SCALES[0] - 1)
    assert packed is not None and packed.shape is not None
    return int(packed.shape.numpy()[0])


def held_bytes(node: ir.Node) -> int:
    """The bytes that training holds for one expert: its levels, and its scales."""
    total = 0
    for place in SCALES:
        packed, scales = _input(node, place - 1), _input(node, place)
        assert packed is not None and packed.shape is not None and scales is not None and scales.shape is not None
        total += math.prod(packed.shape.numpy()) + COPIES * FLOAT * math.prod(scales.shape.numpy())
    return total // expert_count(node)


def activation_of(node: ir.Node) -> Callable[[Tensor], Tensor] | None:
    """What a node makes of its first product; None for an activation that is not known."""
    attribute = node.attributes.get("activation_type")
    name = "relu" if attribute is None else attribute.as_string()
    if name != "swiglu":
        return _PLAIN.get(name)
    if integer(node, "swiglu_fusion", 0) != 1:
        return None
    slope, offset = number(node, "activation_alpha", 1.0), number(node, "activation_beta", 0.0)
    limit = number(node, "swiglu_limit", float("inf"))

    def gated(rows: Tensor) -> Tensor:
        gate, up = rows[:, 0::2].clamp(max=limit), rows[:, 1::2].clamp(-limit, limit)
        return gate * torch.sigmoid(slope * gate) * (up + offset)

    return gated


def _gelu(rows: Tensor) -> Tensor:
    return F.gelu(rows, approximate="tanh")


def _same(rows: Tensor) -> Tensor:
    return rows


_PLAIN: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": _same, "relu": torch.relu, "silu": F.silu, "gelu": _gelu
}  # fmt: skip


def _input(node: ir.Node, place: int) -> ir.Value | None:
    return node.inputs[place] if len(node.inputs) > place else None
