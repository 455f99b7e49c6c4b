"""The notice for experts that the checkpoint holds as floats of 4 bits, and that are rounded again."""

from __future__ import annotations

from collections.abc import Iterable

from drupe.api import Notice
from drupe_onnx import Expression
from drupe_packed.mxfp4 import Mxfp4Values

ROUNDED_AGAIN = Notice(
    "weights",
    "quantized again",
    "the checkpoint holds its experts as floats of 4 bits (MXFP4), and the operator takes integers",
    "--precision int8 comes closer to their values",
)


def rounded_again(matrices: Iterable[Expression]) -> list[Notice]:
    """The notice, if one of these matrices, which get fewer than 8 bits, is stored so."""
    return [ROUNDED_AGAIN] if any(map(_is_mxfp4, matrices)) else []


def _is_mxfp4(rows: Expression) -> bool:
    return isinstance(rows, Mxfp4Values) or any(map(_is_mxfp4, rows.inputs))
