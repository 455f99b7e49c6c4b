"""Models of several parts, and graphs that are not decoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drupe.api import Model, ModelError, Target, UsageError
from drupe_decoding import TextSession
from drupe_onnx import ir

pytest.importorskip("onnxruntime")

from drupe_onnxruntime.plain.runtime import OnnxRuntime

PARTS = {"encoder": {"weights": "float"}, "decoder": {"weights": "float"}}


def write_graph(path: Path, operator: str) -> None:
    """A graph of one operator on `x`."""
    tensor = ir.TensorType(ir.DataType.FLOAT)
    x = ir.Value(name="x", shape=ir.Shape(["n"]), type=tensor)
    node = ir.node(operator, [x])
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "y", tensor, ir.Shape(["n"])
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 21}, name="toy")
    ir.save(ir.Model(graph, ir_version=10), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_graph(tmp_path / "encoder.onnx", "Neg")
    write_graph(tmp_path / "decoder.onnx", "Abs")
    return tmp_path


def test_each_part_runs_by_its_name(folder: Path, cpu: Target) -> None:
    with OnnxRuntime().open(Model("onnx", folder, PARTS), cpu) as session:
        assert session.parts == ("encoder", "decoder")
        x = np.array([1.0, -2.0], np.float32)
        assert session.run({"x": x}, part="encoder")["y"].tolist() == [-1, 2]
        assert session.run({"x": x}, ["y"], part="decoder")["y"].tolist() == [1, 2]
        with pytest.raises(UsageError, match=r"unknown part 'decodr'; did you mean decoder"):
            session.run({"x": x}, part="decodr")
        with pytest.raises(UsageError, match="unknown part 'model'"):
            session.run({"x": x})


def test_a_part_is_opened_at_its_first_run(folder: Path, cpu: Target) -> None:
    with OnnxRuntime().open(Model("onnx", folder, PARTS), cpu) as session:
        (folder / "encoder.onnx").unlink()
        session.run({"x": np.zeros(1, np.float32)}, part="decoder")


def test_the_error_for_a_part_without_a_file_names_the_part(folder: Path, cpu: Target) -> None:
    (folder / "encoder.onnx").unlink()
    model = Model("onnx", folder, PARTS)
    assert "its part 'encoder'" in (OnnxRuntime().refusal(model, cpu) or "")
    with pytest.raises(ModelError, match="its part 'encoder'"):
        OnnxRuntime().open(model, cpu)


def test_a_graph_that_is_not_a_decoder_runs_without_a_text_session(folder: Path, cpu: Target) -> None:
    with OnnxRuntime().open(Model("onnx", folder / "encoder.onnx"), cpu) as session:
        assert session.parts == ("model",)
        assert session.run({"x": np.ones(1, np.float32)})["y"].tolist() == [-1]
        assert not isinstance(session, TextSession)
