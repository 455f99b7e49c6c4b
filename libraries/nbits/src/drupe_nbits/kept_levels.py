"""The notice for weights that are quantized in the source and keep their levels, whatever precision is asked for."""

from __future__ import annotations

from drupe.api import Notice, counted
from drupe_onnx import ir
from drupe_onnx.facts import QUANTIZED, STATED_BITS, USUAL_BITS


def kept_levels(graph: ir.Graph, asked: int | None) -> list[Notice]:
    """A notice if weights of a graph that is not quantized yet by a pass have other bits than those asked for.

    asked: None for floating point. Weights of more bits beside some of the bits asked for are as good as asked for.
    """
    held = [node for node in graph if _holds_levels(node)]
    bits = {_bits(node) for node in held} - {None}
    if not held or (asked is not None and bits and min(filter(None, bits)) == asked):
        return []
    to = f", to {' and '.join(map(str, sorted(filter(None, bits))))} bits" if bits else ""
    what = f"{counted(len(held), 'matrix', 'matrices')} of the source are quantized already{to}, and keep their levels"
    return [Notice("weights", "kept", what, "for another precision, start from the checkpoint in floating point")]


def _holds_levels(node: ir.Node) -> bool:
    """Whether a node reads quantized weights. Models of other tools also dequantize activations."""
    return node.op_type in QUANTIZED and any(value is not None and value.is_initializer() for value in node.inputs)


def _bits(node: ir.Node) -> int | None:
    stated = STATED_BITS.get(node.op_type)
    if stated is None:
        return None
    return node.attributes[stated].as_int() if stated in node.attributes else USUAL_BITS
