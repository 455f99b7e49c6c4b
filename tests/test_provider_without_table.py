"""A provider without an operator table, which accepts graphs by compiling them: packages can be made for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from sites import Site
from tiny import make_checkpoint

PROVIDER = """
from drupe.api import ExecutionProvider, Form, Pass, Recipe, Ref, RuntimePackage, Step, hookimpl
from drupe_onnx import float_stages, quantized_stages

class Acme(ExecutionProvider):
    name = "acme-npu"
    summary = "Acme's card, whose compiler decides what runs"
    runtime_name = "AcmeExecutionProvider"
    packages = (RuntimePackage("onnxruntime", "pip install acme"),)

    def recipes(self):
        compiled = Step("acme-compile")
        return [
            Recipe("acme-int4", "int4", (*quantized_stages(4), compiled)),
            Recipe("acme-fp16", "fp16", (*float_stages("float16", "float16"), compiled)),
        ]

    def devices(self):
        return []

class Compile(Pass):
    name = "acme-compile"
    summary = "stands for Acme's compiler"
    requires = ensures = Form("onnx")

    def run(self, model, config, context):
        assert context.target.capabilities is None
        return model

@hookimpl
def drupe_execution_providers():
    return [Ref("acme-npu", "acme_compiled:Acme", Acme.summary, device="npu")]

@hookimpl
def drupe_passes():
    return [Ref("acme-compile", "acme_compiled:Compile", Compile.summary)]
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("compiled") / "checkpoint", dtype="bfloat16")


def made(checkpoint: Path, folder: Path, *options: str) -> onnx.GraphProto:
    """The graph of a package for the provider."""
    (folder / "site").mkdir()
    site = Site(folder / "site")
    site.add("acme", {"acme-compiled": "acme_compiled"}, {"acme_compiled.py": PROVIDER})
    out = folder / "out"
    done = site.run_here("optimize", checkpoint, "-o", out, "--provider", "acme-npu", "--no-verify", *options)
    assert done.returncode == 0, done.stderr
    return onnx.load(out / "model.onnx", load_external_data=False).graph


def caches(graph: onnx.GraphProto) -> set[int]:
    """Element types of the caches."""
    return {each.type.tensor_type.elem_type for each in graph.input if each.name.startswith("past")}


@pytest.mark.parametrize(
    "options",
    [
        ("--quality", "fast"),
        ("--quality", "balanced"),
        ("--quality", "best", "--calibration-sequences", "4", "--calibration-length", "32"),
        ("--prepare", "rotate"),
    ],
)
def test_weights_are_quantized_in_a_graph_of_float32(
    options: tuple[str, ...], checkpoint: Path, tmp_path: Path
) -> None:
    graph = made(checkpoint, tmp_path, *options)
    assert {"MatMulNBits", "GroupQueryAttention"} <= {node.op_type for node in graph.node}
    assert caches(graph) == {TensorProto.FLOAT}
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    fed = {}
    for each in session.get_inputs():
        empty = each.name.startswith("past")
        shape = [size if isinstance(size, int) else 0 if "past" in size else 1 for size in each.shape]
        fed[each.name] = np.zeros(shape, np.float32) if empty else np.ones(shape, np.int64)
    assert all(np.isfinite(value).all() for value in session.run(None, fed))


def test_the_recipe_decides_the_type_that_a_graph_computes_in(checkpoint: Path, tmp_path: Path) -> None:
    assert caches(made(checkpoint, tmp_path, "--precision", "fp16")) == {TensorProto.FLOAT16}
