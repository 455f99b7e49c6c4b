"""Fixtures for the tests of drupe-onnx: targets, contexts, checkpoints and packages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drupe.api import Context, Target
from drupe_onnx import Capabilities, Expression, OnnxPackage, initializer, ir

_SAFETENSORS_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "uint8": "U8"}


@pytest.fixture
def target() -> Target:
    return Target("test", "1.0", Capabilities(">=1", {}, ("float32",)))


@pytest.fixture
def make_context(tmp_path: Path, target: Target) -> Callable[..., Context]:
    def make(**changes: Any) -> Context:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        return Context(**{"target": target, "scratch": scratch, "threads": 2, **changes})

    return make


@pytest.fixture
def write_safetensors() -> Callable[[Path, Mapping[str, Any]], Path]:
    """Write a safetensors file as its specification says, without using our code."""

    def write(path: Path, arrays: Mapping[str, Any]) -> Path:
        header, data = {}, b""
        for name, values in arrays.items():
            raw = np.ascontiguousarray(values).tobytes()
            header[name] = {
                "dtype": _SAFETENSORS_NAMES[str(values.dtype)],
                "shape": list(values.shape),
                "data_offsets": [len(data), len(data) + len(raw)],
            }
            data += raw
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        return path

    return write


@pytest.fixture
def make_package() -> Callable[..., OnnxPackage]:
    """A package with weights and without nodes: the writer needs no more."""

    def make(weights: Mapping[str, Expression], files: Mapping[str, Path | bytes] | None = None) -> OnnxPackage:
        values = [initializer(name, expression) for name, expression in weights.items()]
        graph = ir.Graph([], [], nodes=[], initializers=values, opset_imports={"": 21}, name="weights")
        return OnnxPackage({"model": ir.Model(graph, ir_version=10)}, dict(files or {}))

    return make
