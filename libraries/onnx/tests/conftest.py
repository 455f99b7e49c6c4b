"""Fixtures for the tests of drupe-onnx: targets, contexts, checkpoints and packages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from drupe.api import Context, Model, Target
from drupe_onnx import (
    Array,
    Capabilities,
    Cast,
    DecoderDescription,
    Expression,
    OnnxPackage,
    SafetensorsTensor,
    Transpose,
    initializer,
    ir,
    read_header,
)
from drupe_onnx.decoder_description import describe_decoder

DECODER = DecoderDescription("llama", 8, 2, 4, 2, 4, 100, 2048, "float32", "float32", 1, (2, 3), None)
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


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, write_safetensors: Callable[..., Path]) -> dict[str, SafetensorsTensor]:
    weight = np.random.default_rng(0).standard_normal((96, 64)).astype(ml_dtypes.bfloat16)
    return read_header(write_safetensors(tmp_path / "model.safetensors", {"weight": weight}))


@pytest.fixture
def model(checkpoint: dict[str, SafetensorsTensor]) -> Model:
    """x @ W.T + b with a lazy weight, a large array and a small array."""
    weight = initializer("weight", Transpose(Cast(checkpoint["weight"], ir.DataType.FLOAT)))
    bias = initializer("bias", Array(np.arange(96, dtype=np.float32)))
    big = initializer("big", Array(np.ones((40, 96), np.float32)))
    x = ir.val("x", ir.DataType.FLOAT, ["n", 64])
    product = ir.node("MatMul", [x, weight], name="product")
    add = ir.node("Add", [product.outputs[0], bias], name="add")
    last = ir.node("Add", [add.outputs[0], big], outputs=[ir.val("y", ir.DataType.FLOAT, ["n", 96])], name="last")
    last.metadata_props["drupe.role"] = "last-token"
    graph = ir.Graph(
        [x],
        last.outputs,
        nodes=[product, add, last],
        initializers=[weight, bias, big],
        opset_imports={"": 21},
        name="g",
    )
    package = OnnxPackage({"model": ir.Model(graph, ir_version=10)}, {"tokenizer.json": b"{}", "extra/a.txt": b"text"})
    describe_decoder(package.component, DECODER)
    return Model("onnx", Path("nowhere"), payload=package)
