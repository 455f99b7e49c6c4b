"""Public names of libraries are loaded lazily: each can be imported, and importing a library loads nothing heavy."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = sorted(stub.parent.name for stub in ROOT.glob("libraries/*/src/*/__init__.pyi"))
HEAVY = ("numpy", "numba", "onnx", "onnx_ir", "onnxruntime", "pydantic", "rich", "tokenizers")


def test_the_repository_has_libraries() -> None:
    assert {"drupe_onnx", "drupe_nbits", "drupe_text"} <= set(LIBRARIES)


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_public_name_can_be_imported(library: str) -> None:
    module = importlib.import_module(library)
    assert module.__all__
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    with pytest.raises(AttributeError, match="nonsense"):
        module.nonsense  # noqa: B018


@pytest.mark.parametrize("library", LIBRARIES)
def test_importing_a_library_loads_nothing_heavy(library: str) -> None:
    code = f"import sys, {library}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
