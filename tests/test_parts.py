"""A model of several parts: quantized, written, opened and run part by part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import drupe
from drupe.api import ModelError, UsageError

SIZES = {"encoder": (64, 96), "decoder": (96, 32)}
"""Input and output features of each part."""


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {role: random.standard_normal(size).astype(np.float32) for role, size in SIZES.items()}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, np.ndarray]) -> Path:
    """Two graphs in a folder, each a matrix product."""
    folder = tmp_path_factory.mktemp("toy")
    for role, weight in weights.items():
        rows, columns = weight.shape
        product = helper.make_node("MatMul", ["x", "weight"], ["y"], name="product")
        graph = helper.make_graph(
            [product],
            role,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", rows])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", columns])],
            [numpy_helper.from_array(weight, "weight")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
        model.ir_version = 10
        onnx.save(model, folder / f"{role}.onnx")
    return folder


@pytest.fixture(scope="module")
def package(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("package") / "out"
    outcome = drupe.optimize(toy, out)
    assert outcome.check.not_run is None and outcome.check.not_compared is None
    return out


def operators(graph: Path) -> list[str]:
    return [node.op_type for node in onnx.load(graph, load_external_data=False).graph.node]


def test_each_part_is_quantized_and_written_under_its_role(package: Path) -> None:
    for role in SIZES:
        assert "MatMulNBits" in operators(package / f"{role}.onnx")
        assert (package / f"{role}.onnx.data").is_file()
    record = json.loads((package / "drupe.json").read_text())
    assert set(record["plan"]["source"]["parts"]) == set(SIZES)


def test_each_part_runs_by_its_name(package: Path, weights: dict[str, np.ndarray]) -> None:
    with drupe.open(package) as session:
        assert set(session.parts) == set(SIZES)
        for role, weight in weights.items():
            inputs = np.random.default_rng(1).standard_normal((4, len(weight))).astype(np.float32)
            made, wanted = session.run({"x": inputs}, part=role)["y"], inputs @ weight
            cosine = (made * wanted).sum() / np.linalg.norm(made) / np.linalg.norm(wanted)
            assert cosine > 0.98
        with pytest.raises(UsageError, match="unknown part 'vision'"):
            session.run({}, part="vision")


def test_a_pass_runs_on_the_parts_that_its_step_names(toy: Path, tmp_path: Path) -> None:
    plan = drupe.plan(toy)
    passes = [
        each.model_copy(update={"parts": ("encoder",)}) if each.name == "quantize-weights" else each
        for each in plan.passes
    ]
    drupe.run(plan.but(passes=passes), tmp_path / "out")
    assert "MatMulNBits" in operators(tmp_path / "out" / "encoder.onnx")
    assert operators(tmp_path / "out" / "decoder.onnx") == ["MatMul"]


def saved(path: Path, node: onnx.NodeProto, inputs: dict[str, tuple[int, list[object]]], **weights: np.ndarray) -> None:
    """Write a graph of one node, whose output is "y"."""
    graph = helper.make_graph(
        [node],
        path.stem,
        [helper.make_tensor_value_info(name, *given) for name, given in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    onnx.save(model, path)


def beside(folder: Path) -> None:
    """Add a part with only an embedding, and a part without weights."""
    table = np.random.default_rng(2).standard_normal((50, 64)).astype(np.float32)
    look_up = helper.make_node("Gather", ["table", "ids"], ["y"], name="look_up", axis=0)
    saved(folder / "embedding.onnx", look_up, {"ids": (TensorProto.INT64, ["n"])}, table=table)
    relu = helper.make_node("Relu", ["x"], ["y"], name="relu")
    saved(folder / "vision.onnx", relu, {"x": (TensorProto.FLOAT, ["n", 64])})


def test_parts_are_quantized_although_one_part_has_no_product(toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy, folder)
    beside(folder)
    drupe.optimize(folder, tmp_path / "out")
    found = {role: operators(tmp_path / "out" / f"{role}.onnx") for role in (*SIZES, "embedding", "vision")}
    assert all("MatMulNBits" in found[role] for role in SIZES)
    assert "GatherBlockQuantized" in found["embedding"] and found["vision"] == ["Relu"]


def test_a_model_without_a_product_in_any_part_is_refused_like_a_model_of_one_part(tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    for folder in (one, several):
        folder.mkdir()
        beside(folder)
    (one / "embedding.onnx").unlink()
    said = []
    for folder in (one, several):
        with pytest.raises(ModelError, match="no matrix of float weights to quantize") as caught:
            drupe.optimize(folder, tmp_path / "out")
        said.append((caught.value.what, caught.value.cure))
    assert said[0] == said[1]
    assert not (tmp_path / "out").exists()
