"""The operators of decoder blocks in torch, so that gradients pass through them.

Each takes its node and the values of its inputs, and gives the values of its outputs. An operator that is not here, or
a form of one, raises Unknown: its block is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

from drupe_onnx import MICROSOFT, ir
from drupe_recover.attention import Unknown, grouped_attention, rotated

Tensor: TypeAlias = Any  # of torch, which linters do not see
Values = Sequence[Tensor | None]
TORCH_TYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float32,  # training computes in float32
    ir.DataType.BFLOAT16: torch.float32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.INT32: torch.int32,
    ir.DataType.BOOL: torch.bool,
}


def run(node: ir.Node, values: Values) -> Sequence[Tensor]:
    """The outputs of a node, as many as torch computes: an output that nothing reads may be missing at the end."""
    operator = OPERATORS.get((node.domain, node.op_type))
    if operator is None:
        raise Unknown(node.op_type)
    return operator(node, values)


def number(node: ir.Node, name: str, default: float) -> float:
    return float(node.attributes[name].value) if name in node.attributes else default


def integer(node: ir.Node, name: str, default: int) -> int:
    return int(node.attributes[name].value) if name in node.attributes else default


def _given(values: Values, place: int) -> Tensor:
    value = values[place]
    assert value is not None
    return value


def _optional(values: Values, place: int) -> Tensor | None:
    return values[place] if place < len(values) else None


def _elementwise(function: Callable[..., Tensor]) -> Callable[[ir.Node, Values], Sequence[Tensor]]:
    return lambda node, values: [function(*values)]


def _rms_norm(node: ir.Node, values: Values) -> Sequence[Tensor]:
    if integer(node, "axis", -1) != -1:
        raise Unknown(f"{node.op_type} over other axes")
    return [_rms(_given(values, 0), _given(values, 1), number(node, "epsilon", 1e-5))]


def _rms(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * weight


def _skip_rms_norm(node: ir.Node, values: Values) -> Sequence[Tensor]:
    summed = _summed(values, bias=3)
    return [_rms(summed, _given(values, 2), number(node, "epsilon", 1e-5)), summed, summed, summed]


def _skip_layer_norm(node: ir.Node, values: Values) -> Sequence[Tensor]:
    summed, weight = _summed(values, bias=4), _given(values, 2)
    normed = F.layer_norm(summed, weight.shape, weight, _optional(values, 3), number(node, "epsilon", 1e-5))
    return [normed, summed, summed, summed]


def _summed(values: Values, bias: int) -> Tensor:
    """What a skip norm adds up. Of its four outputs, those between the first and the last are of no use here."""
    summed = _given(values, 0) + _given(values, 1)
    added = _optional(values, bias)
    return summed if added is None else summed + added


def _layer_norm(node: ir.Node, values: Values) -> Sequence[Tensor]:
    weight = _given(values, 1)
    return [F.layer_norm(_given(values, 0), weight.shape, weight, _optional(values, 2), number(node, "epsilon", 1e-5))]


def _gelu(node: ir.Node, values: Values) -> Sequence[Tensor]:
    attribute = node.attributes.get("approximate")
    return [F.gelu(_given(values, 0), approximate=attribute.as_string() if attribute else "none")]


def _fast_gelu(node: ir.Node, values: Values) -> Sequence[Tensor]:
    bias = _optional(values, 1)
    x = _given(values, 0)
    return [F.gelu(x if bias is None else x + bias, approximate="tanh")]


def _quick_gelu(node: ir.Node, values: Values) -> Sequence[Tensor]:
    x = _given(values, 0)
    return [x * torch.sigmoid(number(node, "alpha", 1.702) * x)]


def _product(node: ir.Node, values: Values) -> Sequence[Tensor]:
    a, b = _given(values, 0), _given(values, 1)
    a = a.transpose(-1, -2) if integer(node, "transA", 0) else a
    b = b.transpose(-1, -2) if integer(node, "transB", 0) else b
    product = number(node, "alpha", 1.0) * (a @ b)
    added = _optional(values, 2)
    return [product if added is None else product + number(node, "beta", 1.0) * added]


def _split(node: ir.Node, values: Values) -> Sequence[Tensor]:
    x, axis = _given(values, 0), integer(node, "axis", 0)
    sizes = _optional(values, 1)
    if sizes is None:
        return [*x.chunk(len(node.outputs), axis)]
    return [*x.split(sizes.tolist(), axis)]


def _reshape(node: ir.Node, values: Values) -> Sequence[Tensor]:
    x = _given(values, 0)
    sizes = _given(values, 1).tolist()
    if not integer(node, "allowzero", 0):
        sizes = [x.shape[place] if size == 0 else size for place, size in enumerate(sizes)]
    return [x.reshape(sizes)]


def _transpose(node: ir.Node, values: Values) -> Sequence[Tensor]:
    order = node.attributes.get("perm")
    x = _given(values, 0)
    return [x.permute(tuple(order.as_ints()) if order else tuple(reversed(range(x.dim()))))]


def _concat(node: ir.Node, values: Values) -> Sequence[Tensor]:
    return [torch.cat([value for value in values if value is not None], integer(node, "axis", 0))]


def _unsqueeze(node: ir.Node, values: Values) -> Sequence[Tensor]:
    x, axes = _given(values, 0), _given(values, 1).tolist()
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return [x]


def _squeeze(node: ir.Node, values: Values) -> Sequence[Tensor]:
    axes = _optional(values, 1)
    x = _given(values, 0)
    return [x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist()))]


def _slice(node: ir.Node, values: Values) -> Sequence[Tensor]:
    x = _given(values, 0)
    starts, ends = _given(values, 1).tolist(), _given(values, 2).tolist()
    axes, steps = _optional(values, 3), _optional(values, 4)
    places = range(len(starts)) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    if min(strides) < 1:
        raise Unknown("Slice backwards")
    cut = [slice(None)] * x.dim()
    for place, start, end, step in zip(places, starts, ends, strides, strict=True):
        cut[place] = slice(start, end, step)
    return [x[tuple(cut)]]


def _cast(node: ir.Node, values: Values) -> Sequence[Tensor]:
    dtype = TORCH_TYPES.get(ir.DataType(integer(node, "to", 1)))
    if dtype is None:
        raise Unknown("Cast to another type")
    return [_given(values, 0).to(dtype)]


def _gather(node: ir.Node, values: Values) -> Sequence[Tensor]:
    x, places, axis = _given(values, 0), _given(values, 1), integer(node, "axis", 0)
    found = x.index_select(axis, places.reshape(-1).long())
    shape = [*x.shape[:axis], *places.shape, *x.shape[axis % x.dim() + 1 :]]
    return [found.reshape(shape)]


def _gather_elements(node: ir.Node, values: Values) -> Sequence[Tensor]:
    return [_given(values, 0).gather(integer(node, "axis", 0), _given(values, 1).long())]


def _expand(node: ir.Node, values: Values) -> Sequence[Tensor]:
    x, shape = _given(values, 0), _given(values, 1).tolist()
    return [x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))]


def _shape(node: ir.Node, values: Values) -> Sequence[Tensor]:
    shape = torch.tensor(_given(values, 0).shape)
    return [shape[integer(node, "start", 0) : integer(node, "end", len(shape))]]


def _softmax(node: ir.Node, values: Values) -> Sequence[Tensor]:
    return [_given(values, 0).softmax(integer(node, "axis", -1))]


def _rotary(node: ir.Node, values: Values) -> Sequence[Tensor]:
    return [rotated(node, *(_given(values, place) for place in range(4)))]


def _clip(node: ir.Node, values: Values) -> Sequence[Tensor]:
    return [_given(values, 0).clamp(_optional(values, 1), _optional(values, 2))]


OPERATORS: Mapping[tuple[str, str], Callable[[ir.Node, Values], Sequence[Tensor]]] = {
    **{
        ("", name): _elementwise(function)
        for name, function in {
            "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div, "Pow": torch.pow,
            "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Relu": torch.relu, "Softplus": F.softplus,
            "Exp": torch.exp, "Log": torch.log, "Sqrt": torch.sqrt, "Neg": torch.neg, "Abs": torch.abs,
            "Reciprocal": torch.reciprocal, "Cos": torch.cos, "Sin": torch.sin, "Erf": torch.erf,
            "Where": torch.where, "Less": torch.lt, "Greater": torch.gt, "Identity": lambda x: x,
        }.items()
    },
    ("", "SimplifiedLayerNormalization"): _rms_norm,
    ("", "LayerNormalization"): _layer_norm,
    ("", "Gelu"): _gelu,
    ("", "MatMul"): _product,
    ("", "Gemm"): _product,
    ("", "Split"): _split,
    ("", "Reshape"): _reshape,
    ("", "Transpose"): _transpose,
    ("", "Concat"): _concat,
    ("", "Unsqueeze"): _unsqueeze,
    ("", "Squeeze"): _squeeze,
    ("", "Slice"): _slice,
    ("", "Cast"): _cast,
    ("", "Gather"): _gather,
    ("", "GatherElements"): _gather_elements,
    ("", "Expand"): _expand,
    ("", "Shape"): _shape,
    ("", "Softmax"): _softmax,
    ("", "Clip"): _clip,
    (MICROSOFT, "FusedMatMul"): _product,
    (MICROSOFT, "Gelu"): _gelu,
    (MICROSOFT, "FastGelu"): _fast_gelu,
    (MICROSOFT, "QuickGelu"): _quick_gelu,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _skip_rms_norm,
    (MICROSOFT, "SkipLayerNormalization"): _skip_layer_norm,
    (MICROSOFT, "RotaryEmbedding"): _rotary,
    (MICROSOFT, "GroupQueryAttention"): grouped_attention,
}  # fmt: skip
