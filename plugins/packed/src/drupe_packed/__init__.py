"""drupe-packed: matrices that a checkpoint holds quantized already. Each name is loaded when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drupe_packed.matrix import PackedMatrix
    from drupe_packed.names import matrices
    from drupe_packed.packing import Packing, Rule
    from drupe_packed.repacking import Repacked, parts_of

_HOMES = {
    "PackedMatrix": "matrix",
    "Packing": "packing",
    "Repacked": "repacking",
    "Rule": "packing",
    "matrices": "names",
    "parts_of": "repacking",
}

__all__ = ["PackedMatrix", "Packing", "Repacked", "Rule", "matrices", "parts_of"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"drupe_packed has no '{name}'")
    return getattr(importlib.import_module(f"drupe_packed.{_HOMES[name]}"), name)
