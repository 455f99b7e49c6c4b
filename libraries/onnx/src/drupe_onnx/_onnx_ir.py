"""onnx_ir, imported without sympy, which it needs only for arithmetic on symbolic dimensions.

`import onnx_ir` takes 0.5 s after numpy is loaded, and sympy takes 0.3 s of that. onnx_ir 1.1 looks up a few functions
of sympy while it is imported. A stand-in replaces sympy during that import, and loads the real sympy on first use.
Import it as `from drupe_onnx import ir`. Where onnx_ir or sympy is already loaded, the loaded module is used.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _Sympy(ModuleType):
    """A stand-in for sympy: each name that onnx_ir looks up becomes a function that loads sympy when it is called."""

    importing = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if not self.importing:
            return getattr(importlib.import_module("sympy"), name)

        def later(*arguments: Any, **options: Any) -> Any:
            return getattr(importlib.import_module("sympy"), name)(*arguments, **options)

        return later


@contextmanager
def _sympy_on_demand() -> Iterator[None]:
    if "sympy" in sys.modules or "onnx_ir" in sys.modules:
        yield
        return
    stand_in = _Sympy("sympy")
    sys.modules["sympy"] = stand_in
    try:
        yield
    finally:
        stand_in.importing = False
        if sys.modules.get("sympy") is stand_in:
            del sys.modules["sympy"]


with _sympy_on_demand():
    import onnx_ir as ir

__all__ = ["ir"]
