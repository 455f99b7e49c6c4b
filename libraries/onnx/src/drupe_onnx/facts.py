"""The facts of a graph that plans need, read from its outline."""

from __future__ import annotations

import math
from pathlib import Path

from drupe_onnx.elements import ELEMENTS
from drupe_onnx.metadata import LAST_TOKEN, ROLE
from drupe_onnx.outline import Outline, read_outline
from drupe_onnx.package_folder import PackageFiles, graph_files

PACKAGED = "genai_config.json"
"""The file beside a graph that shows that the graph is packaged for a runtime."""
LOGITS = "logits"
EMBEDDING = "embedding"
STATED_BITS = {"GatherBlockQuantized": "bits", "MatMulNBits": "bits", "QMoE": "expert_weight_bits"}
"""Operators on quantized weights with the attribute that says their bits."""
USUAL_BITS = 4
"""The bits of a node without that attribute."""
_FOUR_BITS = frozenset({"MatMulBnb4", "MatMulFpQ4"})
QUANTIZED = frozenset(
    {
        "ConvInteger", "DequantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat",
        "QAttention", "QGemm", "QLinearConv", "QLinearMatMul", *STATED_BITS, *_FOUR_BITS,
    }
)  # fmt: skip
"""Operators on quantized weights, also of other tools."""
PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul"})
_FLOATS = frozenset({1, 10, 16})  # float32, float16, bfloat16
_LEVELS = frozenset({2, 3, 21, 22, 25, 26})
"""Element types of quantized weights: integers of 8, 4 and 2 bits."""


def weights_of(outline: Outline) -> str:
    """Whether matrices are quantized: "float" for none, "quantized" for all that can be, "mixed" for some."""
    if not any(node.operator in QUANTIZED for node in outline.nodes):
        return "float"
    return "mixed" if _reads_float_matrix(outline) else "quantized"


def bits_of(outline: Outline) -> set[int]:
    """The bits that a graph's quantized weights have."""
    stored = {each.name: each for each in outline.weights if each.element in _LEVELS and math.prod(each.shape) > 1}
    found = set()
    for node in outline.nodes:
        if node.operator in STATED_BITS:
            found.add(node.integers.get(STATED_BITS[node.operator], USUAL_BITS))
        elif node.operator in _FOUR_BITS:
            found.add(4)
        elif node.operator in QUANTIZED:
            found.update(ELEMENTS[stored[name].element][1] for name in node.inputs if name in stored)
    return found


def logits_of(outline: Outline) -> str:
    """ "last" where a decoder's graph gives the logits of the last token only; "all" otherwise."""
    marked = any(node.metadata.get(ROLE) == LAST_TOKEN for node in outline.nodes)
    shapes = [port.shape or () for port in outline.outputs if port.name == LOGITS]
    return "last" if marked or any(len(shape) == 3 and shape[1] == 1 for shape in shapes) else "all"


def _reads_float_matrix(outline: Outline) -> bool:
    """Whether a node multiplies with a matrix of floats or looks tokens up in one."""
    matrices = {each.name for each in outline.weights if each.element in _FLOATS and len(each.shape) == 2}
    fed = {port.name for port in outline.inputs}
    for node in outline.nodes:
        first, second = (*node.inputs, "", "")[:2]
        if node.operator == "Cast" and first in matrices:
            matrices.update(node.outputs)
        looked_up = second in fed or node.metadata.get(ROLE) == EMBEDDING
        if (node.operator in PRODUCTS and second in matrices) or (
            node.operator == "Gather" and first in matrices and looked_up
        ):
            return True
    return False


def facts_of(outline: Outline, *, packaged: bool) -> dict[str, str]:
    """The facts of a graph. packaged: whether all files that a runtime needs lie beside the graph."""
    return {
        "weights": weights_of(outline),
        "logits": logits_of(outline),
        "packaged": "yes" if packaged else "no",
    }


def part_facts(files: PackageFiles) -> dict[str, dict[str, str]]:
    """The facts of each part, by role, of the package in a folder or of the model in an .onnx file."""
    packaged = PACKAGED in files.others
    return {role: facts_of(read_outline(path), packaged=packaged) for role, path in files.graphs.items()}


def stored_bits(location: Path) -> set[int]:
    """The bits that the quantized weights of the package in a folder, or of an .onnx file, have; of no graph, none."""
    graphs = graph_files(location) if location.is_file() or any(location.glob("*.onnx")) else {}
    return {bits for path in graphs.values() for bits in bits_of(read_outline(path))}
