"""Norm: RMS norm or LayerNorm along the last axis, alone and together with adding the residual."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from drupe.api import Record, replace
from drupe_model_builder.dimensions import Dims, dims

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_onnx import Expression, ir


class Norm(Record):
    """A norm, and where its weights are.

    name: the prefix of its tensors in the checkpoint, and of its nodes. kind: "rms" divides by the root of the mean
    square; "layer" takes the mean off first. shape: of the weight in the checkpoint. weight, bias: whether it has them.
    offset: is added to the weight: 1 where a checkpoint stores the weight minus one, as Gemma's do.
    A shape of two dimensions [heads, head_dim] gives each head a weight of its own. pieces: whether each of these is a
    tensor of its own, as StableLM's are. clip: values of the result are limited to this size. tensor: the name of the
    weight where it is not the norm's name with ".weight".
    """

    name: str
    shape: tuple[int, ...]
    epsilon: float
    kind: Literal["rms", "layer"] = "rms"
    weight: bool = True
    bias: bool = False
    offset: float = 0.0
    pieces: bool = False
    clip: float | None = None
    tensor: str | None = None

    @property
    def weight_name(self) -> str:
        """The name of the weight in the checkpoint."""
        return self.tensor or f"{self.name}.weight"

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        if self.weight and self.pieces:
            for head in range(self.shape[0]):
                yield f"{self.name}.norms.{head}.weight", self.shape[1:]
        elif self.weight:
            yield self.weight_name, self.shape
        if self.bias:
            yield f"{self.name}.bias", self.shape


def norm(graph: GraphBuilder, part: Norm, x: ir.Value) -> ir.Value:
    """The norm of x along its last axis."""

    shape = dims(x)
    if part.clip is not None:
        limits = [graph.number(-part.clip), graph.number(part.clip)]
        return graph.node("Clip", [norm(graph, replace(part, clip=None), x), *limits], f"{part.name}/Clip", shape)
    if part.weight and len(part.shape) > 1:
        plain = norm(graph, replace(part, weight=False, shape=part.shape[-1:]), x)
        return graph.node("Mul", [plain, _weights_of_heads(graph, part)], f"{part.name}/Mul", shape)
    if part.kind == "layer":
        return _layer_norm(graph, part, x, shape)
    attributes: dict[str, Any] = {"axis": -1, "epsilon": part.epsilon, "stash_type": 1}
    if graph.serves("SimplifiedLayerNormalization", graph.dtype, graph.dtype, outputs=[graph.dtype], **attributes):
        inputs = [x, gamma(graph, part)]
        return graph.node(
            "SimplifiedLayerNormalization", inputs, f"{part.name}/RMSNorm", shape, role="norm", **attributes
        )
    return _rms_norm_in_pieces(graph, part, x, shape)


def add_and_norm(graph: GraphBuilder, part: Norm, x: ir.Value, skip: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """The norm of x + skip, and the sum; without skip, the norm of x, and x."""
    from drupe_onnx import MICROSOFT

    if skip is None:
        return norm(graph, part, x), x
    shape, dtype = dims(x), graph.dtype
    operator = "SkipSimplifiedLayerNormalization"
    if part.kind == "rms" and graph.serves(
        operator, dtype, dtype, dtype, domain=MICROSOFT, outputs=[dtype], epsilon=part.epsilon
    ):
        normed, _, _, total = graph.nodes(
            operator,
            [x, skip, gamma(graph, part)],
            f"{part.name}/SkipRMSNorm",
            [(dtype, shape), None, None, (dtype, shape)],
            domain=MICROSOFT,
            role="norm",
            epsilon=part.epsilon,
        )
        return normed, total
    total = graph.node("Add", [x, skip], f"{part.name}/Add", shape)
    return norm(graph, part, total), total


def gamma(graph: GraphBuilder, part: Norm) -> ir.Value:
    """The weight as the graph multiplies by it: a vector [last axis], ones where the norm has no weight."""
    import numpy as np

    from drupe_onnx import Array

    size = part.shape[-1]
    if not part.weight:
        return graph.vector(f"constant/ones/{size}", Array(np.ones(size, np.float32)))
    name = part.weight_name
    return graph.vector(name, _shifted(graph.weights[name], part.offset))


def _weights_of_heads(graph: GraphBuilder, part: Norm) -> ir.Value:
    """The weights [heads, head_dim] of a norm that has one for each head."""
    from drupe_onnx import Concat, Reshape

    name = part.weight_name
    if not part.pieces:
        return graph.vector(name)
    pieces = tuple(graph.weights[tensor] for tensor, _ in part.tensors())
    return graph.vector(name, Reshape(Concat(pieces), part.shape))


def _shifted(weight: Expression, offset: float) -> Expression:
    """The weight plus the offset, in float32, as models compute it."""
    from drupe_onnx import Affine, as_type, ir

    return Affine(as_type(weight, ir.DataType.FLOAT), offset=offset) if offset else weight


def _layer_norm(graph: GraphBuilder, part: Norm, x: ir.Value, shape: Dims) -> ir.Value:
    """LayerNormalization, which every target has. It computes in float32 and rounds once."""
    inputs = [x, gamma(graph, part)]
    if part.bias:
        inputs.append(graph.vector(f"{part.name}.bias"))
    return graph.node(
        "LayerNormalization",
        inputs,
        f"{part.name}/LayerNorm",
        shape,
        role="norm",
        axis=-1,
        epsilon=part.epsilon,
        stash_type=1,
    )


def _rms_norm_in_pieces(graph: GraphBuilder, part: Norm, x: ir.Value, shape: Dims) -> ir.Value:
    """The norm for targets without the operator. Squares are float32, because float16 overflows at 256 squared."""
    from drupe_onnx import ir

    name, wide, one = part.name, ir.DataType.FLOAT, [*shape[:-1], 1]
    x32 = x if x.dtype == wide else graph.node("Cast", [x], f"{name}/Wide", shape, dtype=wide, to=wide)
    square = graph.node("Mul", [x32, x32], f"{name}/Square", shape, dtype=wide)
    mean = graph.node("ReduceMean", [square, graph.integers([-1])], f"{name}/Mean", one, dtype=wide, keepdims=1)
    safe = graph.node("Add", [mean, graph.number(part.epsilon, wide)], f"{name}/Epsilon", one, dtype=wide)
    root = graph.node("Sqrt", [safe], f"{name}/Sqrt", one, dtype=wide)
    normed = graph.node("Div", [x32, root], f"{name}/Div", shape, dtype=wide)
    if x.dtype != wide:
        normed = graph.node("Cast", [normed], f"{name}/Narrow", shape, to=graph.dtype)
    if not part.weight:
        return normed
    return graph.node("Mul", [normed, gamma(graph, part)], f"{name}/Mul", shape, role="norm")
