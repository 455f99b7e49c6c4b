"""The usual size: a package's size in the genai model builder's default scheme, the reference for default budgets."""

from __future__ import annotations

from collections.abc import Sequence

from drupe_blockquant import Scheme
from drupe_mixed_precision.groups import Group
from drupe_mixed_precision.written_size import written_bytes
from drupe_nbits.rewriting import PRODUCT, quantized_parts
from drupe_onnx import Capabilities, OnnxPackage, ir

REFERENCE = Scheme(4, 32, True)
FLOAT, UNTOUCHED = 4, 2  # bytes
"""The model builder's default for all that is multiplied with, and for each weight that is only looked up, which costs
no time, the type that checkpoints have. (The builder makes it float32.)"""


def usual_bytes(part: Group) -> int:
    """Bytes of a part's weights."""
    if not part.is_multiplied:
        return UNTOUCHED * part.size
    return REFERENCE.bytes_for(*part.shape, part.scale_bytes)


def usual_package_bytes(
    package: OnnxPackage, parts: Sequence[Group], served: Sequence[bool], capabilities: Capabilities
) -> int:
    """Bytes of graphs and weights. Already quantized matrices count as in the reference scheme if that takes more.

    parts: `parts_of` the package. served: for each, whether the target supports it quantized.
    """
    multiplied = [REFERENCE if each and part.is_multiplied else None for part, each in zip(parts, served, strict=True)]
    written = written_bytes(package, multiplied, capabilities, bare=True)
    looked_up = [part for part, each in zip(parts, served, strict=True) if each and not part.is_multiplied]
    left = sum(usual - taken for usual, taken in already_quantized(package))
    return written + sum((UNTOUCHED - part.scale_bytes) * part.size for part in looked_up) + max(0, left)


def already_quantized(package: OnnxPackage) -> list[tuple[int, int]]:
    """Bytes of each already quantized matrix: in the reference scheme, and as stored."""
    nodes = [node for component in package.components.values() for node in component.graph if node.op_type == PRODUCT]
    by_matrix = {node.inputs[1]: node for node in nodes}
    return [_usual_and_taken(node) for node in by_matrix.values()]


def _usual_and_taken(node: ir.Node) -> tuple[int, int]:
    n, k = (node.attributes[name].as_int() for name in ("N", "K"))
    scales = node.inputs[2]
    scale_bytes = scales.dtype.bitwidth // 8 if scales is not None and scales.dtype is not None else FLOAT
    taken = sum(value.const_value.nbytes for value in quantized_parts(node) if value.const_value is not None)
    return REFERENCE.bytes_for(n, k, scale_bytes), taken
