"""The arithmetic of nodes with experts, as onnxruntime's operator has it: who runs a row, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from drupe.api import Record
from drupe_onnx import ir

Floats = NDArray[np.float32]
Activation = Callable[[Floats], Floats]
"""Makes of the first product of each row, [rows, N], what the second product reads: [rows, K]."""


class Routing(Record):
    """How rows choose experts. chosen: how many each runs. normalised: whether its weights are divided by their sum."""

    chosen: int
    normalised: bool

    @classmethod
    def of(cls, node: ir.Node) -> Routing | None:
        """The routing of a node; None for one that is not known."""
        if _integer(node, "use_sparse_mixer"):
            return None
        return cls(_integer(node, "k", 1), bool(_integer(node, "normalize_routing_weights")))

    def weights(self, logits: Floats) -> Floats:
        """Each row's weights [rows, experts]: zero for experts that are not chosen."""
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        shares = shifted / shifted.sum(-1, keepdims=True)
        places = np.argsort(-logits, -1, kind="stable")[:, : self.chosen]
        weights: Floats = np.zeros_like(shares)
        np.put_along_axis(weights, places, np.take_along_axis(shares, places, -1), -1)
        if self.normalised:
            weights /= weights.sum(-1, keepdims=True)
        return weights


def expert_activation(node: ir.Node) -> Activation | None:
    """The activation of a node with two matrices for each expert; None for one that is not known."""
    attribute = node.attributes.get("activation_type")
    name = "relu" if attribute is None else attribute.as_string()
    if name != "swiglu":
        return _PLAIN.get(name)
    if _integer(node, "swiglu_fusion") != 1:
        return None
    slope, offset = _number(node, "activation_alpha", 1.0), _number(node, "activation_beta", 0.0)
    return partial(_gated, slope=slope, offset=offset, limit=_number(node, "swiglu_limit", np.inf))


def _gated(rows: Floats, *, slope: float, offset: float, limit: float) -> Floats:
    """gate * sigmoid(slope * gate) * (up + offset), of rows in which gate and up lie in turn."""
    gate, up = np.minimum(rows[:, 0::2], np.float32(limit)), np.clip(rows[:, 1::2], -limit, limit)
    result: Floats = gate * _sigmoid(np.float32(slope) * gate) * (up + np.float32(offset))
    return result


def _sigmoid(x: Floats) -> Floats:
    result: Floats = 0.5 + 0.5 * np.tanh(0.5 * x)
    return result


def _silu(x: Floats) -> Floats:
    return x * _sigmoid(x)


def _gelu(x: Floats) -> Floats:
    result: Floats = 0.5 * x * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + 0.044715 * x**3)))
    return result


def _relu(x: Floats) -> Floats:
    return np.maximum(x, np.float32(0))


def _same(x: Floats) -> Floats:
    return x


_PLAIN: Mapping[str, Activation] = {"identity": _same, "relu": _relu, "silu": _silu, "gelu": _gelu}


def _integer(node: ir.Node, name: str, default: int = 0) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _number(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()
