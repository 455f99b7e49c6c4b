"""drupe-onnx: lazy ONNX graphs. Each public name is loaded when it is first used, so importing this costs nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from drupe_onnx.expressions import (
        Access,
        Affine,
        Array,
        Cast,
        Concat,
        Expression,
        ExternalTensor,
        OutputSpec,
        Permute,
        Produced,
        Producer,
        Reshape,
        RowRange,
        SafetensorsTensor,
        Source,
        Take,
        Transpose,
        fingerprint,
        from_json,
        to_json,
    )
    from drupe_onnx.files import Files
    from drupe_onnx.kind import OnnxKind
    from drupe_onnx.package import BLOCK, LAST_TOKEN, ROLE, DecoderDescription, OnnxPackage
    from drupe_onnx.reading import unreadable
    from drupe_onnx.safetensors import open_checkpoint, read_header
    from drupe_onnx.twin import all_logits, write_twin
    from drupe_onnx.weights import LazyWeight, MaterializedTooMuch, expression_of, initializer
    from drupe_onnx.writer import write_package

_HOMES = {
    "drupe_onnx._onnx_ir": ("ir",),
    "drupe_onnx.expressions": (
        "Access", "Affine", "Array", "Cast", "Concat", "Expression", "ExternalTensor", "OutputSpec", "Permute",
        "Produced", "Producer", "Reshape", "RowRange", "SafetensorsTensor", "Source", "Take", "Transpose",
        "fingerprint", "from_json", "to_json",
    ),
    "drupe_onnx.files": ("Files",),
    "drupe_onnx.kind": ("OnnxKind",),
    "drupe_onnx.package": ("BLOCK", "LAST_TOKEN", "ROLE", "DecoderDescription", "OnnxPackage"),
    "drupe_onnx.reading": ("unreadable",),
    "drupe_onnx.safetensors": ("open_checkpoint", "read_header"),
    "drupe_onnx.twin": ("all_logits", "write_twin"),
    "drupe_onnx.weights": ("LazyWeight", "MaterializedTooMuch", "expression_of", "initializer"),
    "drupe_onnx.writer": ("write_package",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BLOCK", "LAST_TOKEN", "ROLE", "Access", "Affine", "Array", "Cast", "Concat", "DecoderDescription", "Expression",
    "ExternalTensor", "Files", "LazyWeight", "MaterializedTooMuch", "OnnxKind", "OnnxPackage", "OutputSpec", "Permute",
    "Produced", "Producer", "Reshape", "RowRange", "SafetensorsTensor", "Source", "Take", "Transpose", "all_logits",
    "expression_of", "fingerprint", "from_json", "initializer", "ir", "open_checkpoint", "read_header", "to_json",
    "unreadable", "write_package", "write_twin",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"drupe_onnx has no '{name}'")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
