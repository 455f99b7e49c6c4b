"""Dimensions of values: sizes, and names for those that vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drupe_onnx import ir

Dims = Sequence[int | str]

BATCH, SEQUENCE, PAST, TOTAL = "batch", "sequence", "past", "total"


def dims(value: ir.Value) -> list[int | str]:
    """The dimensions of a value whose shape is known."""
    assert value.shape is not None
    return [each if isinstance(each, int) else str(each.value) for each in value.shape]
