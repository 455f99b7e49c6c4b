"""External data of graphs from other tools: it is read lazily, and only from files of the model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

import drupe
from drupe.api import ModelError
from drupe_onnx import ExternalTensor, OnnxKind, expression_of
from drupe_onnx_models.resolving import resolve

SIZE = 64


def write(folder: Path, location: str, data: Path) -> Path:
    """A graph that refers to `location` for its matrix, and the data."""
    folder.mkdir(parents=True, exist_ok=True)
    data.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32)
    data.write_bytes(values.tobytes())
    matrix = numpy_helper.from_array(values, "w")
    set_external_data(matrix, location, 0, values.nbytes)
    matrix.ClearField("raw_data")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIZE]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ports[:1], ports[1:], [matrix])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder


def sources(folder: Path):
    model = OnnxKind().load(resolve(str(folder)))
    return [expression_of(value) for value in model.payload.component.graph.initializers.values()]


@pytest.mark.parametrize("location", ["weights.bin", "deeper/weights.bin"])
def test_data_in_the_folder_is_found_without_reading_it(tmp_path, location):
    (source,) = sources(write(tmp_path / "m", location, tmp_path / "m" / location))
    assert isinstance(source, ExternalTensor)
    assert source.path == tmp_path / "m" / location


def test_weights_in_the_graphs_own_file_are_found_without_reading_them(made):
    large = [each for each in sources(made("torch")) if each.nbytes > 1024]
    assert len(large) == 16
    assert all(isinstance(each, ExternalTensor) and each.path.name == "model.onnx" for each in large)


@pytest.mark.parametrize("location", ["../weights.bin", "deeper/../../weights.bin", "{absolute}"])
def test_data_outside_the_folder_is_refused_and_nothing_is_written(tmp_path, location):
    location = location.format(absolute=tmp_path / "weights.bin")
    folder = write(tmp_path / "m", location, tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="'w' lies outside the folder of its graph"):
        drupe.optimize(folder, tmp_path / "out", provider="cpu")
    assert not (tmp_path / "out").exists()


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    folder = write(tmp_path / "m", "weights.bin", tmp_path / "elsewhere" / "secret")
    (folder / "weights.bin").symlink_to(tmp_path / "elsewhere" / "secret")
    with pytest.raises(ModelError, match="'w' lies outside the folder of its graph"):
        sources(folder)


def test_a_link_into_the_folder_of_the_linked_graph_is_followed_as_in_the_hubs_cache(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc" / "onnx"
    write(blobs, "model.onnx_data", blobs / "1234")
    shutil.move(blobs / "model.onnx", blobs / "5678")
    snapshot.mkdir(parents=True)
    for name, blob in (("model.onnx", "5678"), ("model.onnx_data", "1234")):
        (snapshot / name).symlink_to(os.path.relpath(blobs / blob, snapshot))
    (source,) = sources(snapshot)
    assert source.path == snapshot / "model.onnx_data"


@pytest.mark.parametrize(("damage", "message"), [("cut", "ends at byte"), ("remove", "is missing")])
def test_missing_data_is_an_error_before_the_work(tmp_path, damage, message):
    folder = write(tmp_path / "m", "weights.bin", tmp_path / "m" / "weights.bin")
    if damage == "cut":
        os.truncate(folder / "weights.bin", 100)
    else:
        (folder / "weights.bin").unlink()
    with pytest.raises(ModelError, match=message):
        drupe.optimize(folder, tmp_path / "out", provider="cpu")
    assert not (tmp_path / "out").exists()


def test_evaluating_a_graph_with_embedded_weights_leaves_its_file_unchanged(made, tmp_path):
    folder = shutil.copytree(made("torch"), tmp_path / "copy")
    before = (folder / "model.onnx").read_bytes()
    metrics = {each.name: each.value for each in drupe.evaluate(folder, folder, provider="cpu", tokens=32)}
    assert metrics["kl_divergence"] < 1e-6
    assert (folder / "model.onnx").read_bytes() == before
    onnx.checker.check_model(str(folder / "model.onnx"))
