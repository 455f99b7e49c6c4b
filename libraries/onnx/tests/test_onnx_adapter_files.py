"""Adapter files: onnxruntime reads what is written, what onnxruntime writes is read, and other files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drupe.api import ModelError, OutputError
from drupe_onnx import Array, Files, adapter_files
from drupe_onnx.adapter_files import read_adapter, write_adapter

VALUES = {
    "model.layers.0.q.lora_A.weight": np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32),
    "b": np.random.default_rng(2).normal(size=(3, 5)).astype(np.float16),
    "nothing": np.zeros((4, 0), np.float32),
}


def test_onnxruntime_reads_what_is_written(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    write_adapter(tmp_path / "a.onnx_adapter", {name: Array(value) for name, value in VALUES.items()})
    found = onnxruntime.AdapterFormat.read_adapter(str(tmp_path / "a.onnx_adapter")).get_parameters()
    assert found.keys() == VALUES.keys()
    for name, value in VALUES.items():
        np.testing.assert_array_equal(found[name].numpy(), value)


def test_what_onnxruntime_writes_is_read(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    adapter = onnxruntime.AdapterFormat()
    adapter.set_parameters({name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in VALUES.items()})
    adapter.export_adapter(str(tmp_path / "a.onnx_adapter"))
    with Files() as files:
        found = {name: each.value(files) for name, each in read_adapter(tmp_path / "a.onnx_adapter").items()}
    assert found.keys() == VALUES.keys()
    for name, value in VALUES.items():
        np.testing.assert_array_equal(found[name], value)


def test_values_begin_where_a_runtime_can_map_them(tmp_path: Path) -> None:
    write_adapter(tmp_path / "a.onnx_adapter", {name: Array(value) for name, value in VALUES.items()})
    places = [each.offset for each in read_adapter(tmp_path / "a.onnx_adapter").values()]
    assert all(place % adapter_files.ALIGNMENT == 0 for place in places)


@pytest.mark.parametrize("length", [0, 7, 60, 200, -1])
def test_a_damaged_file_is_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx_adapter"
    write_adapter(path, {name: Array(value) for name, value in VALUES.items() if value.size})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match="is not an adapter file of onnxruntime, or is damaged"):
        read_adapter(path)


def test_more_than_the_format_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_files, "LARGEST", 300)
    with pytest.raises(OutputError, match="holds at most 300"):
        write_adapter(tmp_path / "a.onnx_adapter", {"a": Array(np.zeros((10, 10), np.float32))})
    assert not (tmp_path / "a.onnx_adapter").exists()
