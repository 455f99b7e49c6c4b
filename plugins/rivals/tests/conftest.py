"""Tiny models that write text, each made once: a package, its checkpoint, a GGUF file, and a model of OpenVINO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_files import gguf_of
from tiny import VOCABULARY, make_checkpoint

import drupe


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder with room for 256 tokens."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "checkpoint", "qwen2")


@pytest.fixture(scope="session")
def package(checkpoint: Path) -> Path:
    pytest.importorskip("onnxruntime_genai")
    out = checkpoint.with_name("package")
    drupe.optimize(checkpoint, out, precision="fp32", verify=False, provider="cpu")
    return out


@pytest.fixture(scope="session")
def gguf_file(checkpoint: Path) -> Path:
    return gguf_of(checkpoint, "F32").write(checkpoint.with_name("tiny.gguf"))


@pytest.fixture(scope="session")
def openvino_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stateful model: a token's logits come from the sum of its own and all earlier embeddings."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    folder = tmp_path_factory.mktemp("openvino") / "model"
    folder.mkdir()
    save_openvino(folder / "openvino_model.xml")
    (folder / "config.json").write_text(json.dumps({"model_type": "sum", "max_position_embeddings": 256}))
    return folder


def save_openvino(path: Path, size: int = 32) -> None:
    import numpy as np
    import openvino
    from openvino import opset13 as op
    from openvino.op.util import Variable, VariableInfo

    def named(name: str, shape: list[int], dtype: Any) -> Any:
        port = op.parameter(shape, dtype, name=name)
        port.output(0).get_tensor().set_names({name})
        return port

    table = op.constant(np.random.default_rng(0).standard_normal((VOCABULARY, size)).astype(np.float32))
    ids, mask = (named(name, [-1, -1], np.int64) for name in ("input_ids", "attention_mask"))
    beams = named("beam_idx", [-1], np.int32)
    zero, one = np.int64(0), np.int64(1)
    rows = op.unsqueeze(op.gather(op.shape_of(ids), zero, zero), zero)
    nothing = op.broadcast(np.float32(0), op.concat([rows, op.constant(np.array([1, size]))], 0))
    told = VariableInfo()
    told.data_shape, told.data_type, told.variable_id = openvino.PartialShape([-1, 1, size]), openvino.Type.f32, "sum"
    state = Variable(told)
    before = op.gather(op.read_value(nothing, state), beams, zero)
    sums = op.add(op.cum_sum(op.gather(table, ids, zero), one), before)
    kept = op.assign(op.slice(sums, [-1], [2**31 - 1], [1], [1]), state)
    logits = op.matmul(sums, table, False, True)
    logits.output(0).get_tensor().set_names({"logits"})
    openvino.save_model(openvino.Model([op.result(logits)], [kept], [ids, mask, beams], "sum"), path)
