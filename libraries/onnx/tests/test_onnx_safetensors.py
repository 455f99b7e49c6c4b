"""Safetensors: valid files are read, and each kind of broken file has its own error message."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from drupe.api import ModelError
from drupe_onnx import Files, read_header, tensors_of_folder

INDEX = "model.safetensors.index.json"


def raw(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(start: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


def test_tensors_written_by_the_reference_library_are_read_exactly(tmp_path):
    random = np.random.default_rng(0)
    arrays = {
        "a.weight": random.standard_normal((3, 5)).astype(np.float32),
        "b": random.standard_normal(7).astype(np.float16),
        "c": random.integers(0, 255, (2, 2, 2)).astype(np.uint8),
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 4), np.float32),
        "bool": np.array([True, False]),
        "brain": random.standard_normal((4, 4)).astype(ml_dtypes.bfloat16),
    }
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors", {"format": "pt"})
    tensors = read_header(tmp_path / "model.safetensors")
    assert tensors.keys() == arrays.keys()
    with Files() as files:
        for name, values in arrays.items():
            np.testing.assert_array_equal(tensors[name].value(files), values)
            assert tensors[name].name == name


@pytest.mark.parametrize(
    ("header", "data", "length", "message"),
    [
        (b"", b"", 0, "not JSON"),
        ({"a": entry(0, 8)}, b"12345678", 1 << 40, r"header would take 1099511627776 bytes, but the file has only"),
        ({"a": entry(0, 8)}, b"12345678", 500, "header would take 500 bytes"),
        ({"a": entry(0, 8)}, b"12345678", 20, "not JSON"),
        (b"\xff\xfe{}", b"", None, "not JSON"),
        (b"[" * 5000, b"", None, "not JSON"),
        ([1, 2], b"", None, "not a JSON object"),
        (b'{"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}, "a": {}}', b"1234", None, "names 'a' twice"),
        ({"a": {"dtype": "F32", "shape": [2]}}, b"12345678", None, "'a' lacks dtype, shape or data_offsets"),
        ({"a": 3}, b"", None, "'a' lacks dtype"),
        ({"a": entry(0, 8, dtype="F12")}, b"12345678", None, "unknown element type 'F12'"),
        ({"a": entry(0, 8, dtype="F16")}, b"12345678", None, r"'a' \(F16, \[2\]\) needs 4 bytes and has 8"),
        ({"a": entry(0, 8, [3])}, b"12345678", None, "needs 12 bytes and has 8"),
        ({"a": entry(0, 8, [-2])}, b"12345678", None, r"has shape \[-2\]"),
        ({"a": entry(0, 8, [2.0])}, b"12345678", None, r"has shape \[2.0\]"),
        ({"a": entry(0, 8, [True, 2])}, b"12345678", None, "has shape"),
        ({"a": entry(-4, 4, [2])}, b"12345678", None, r"data_offsets \[-4, 4\]"),
        ({"a": entry(8, 0, [2])}, b"12345678", None, "needs 8 bytes and has -8"),
        ({"a": entry(0, 1 << 70, [1 << 68])}, b"12345678", None, "has shape"),
        ({"a": entry(0, 16)}, b"12345678", None, "'a' ends 8 bytes after the end of the file"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, b"123456789012", None, "'b' overlaps with 'a'"),
        ({"a": entry(0, 8), "b": entry(0, 8)}, b"12345678", None, "overlaps"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, b"123456789012", None, "4 bytes before the tensor 'b'"),
        ({"a": entry(4, 8)}, b"12345678", None, "4 bytes before the tensor 'a'"),
        ({"a": entry(0, 4)}, b"12345678", None, "4 bytes at its end belong to no tensor"),
    ],
)
def test_a_wrong_header_is_refused_before_any_data_is_read(tmp_path, header, data, length, message):
    path = raw(tmp_path / "model.safetensors", header, data, length)
    with pytest.raises(ModelError, match=message) as caught:
        read_header(path)
    assert caught.value.where == str(path)
    assert caught.value.cure


@pytest.mark.parametrize("size", [0, 3, 7])
def test_a_file_that_is_too_short_for_a_length_is_refused(tmp_path, size):
    (tmp_path / "model.safetensors").write_bytes(b"\0" * size)
    with pytest.raises(ModelError, match="not a sound safetensors file"):
        read_header(tmp_path / "model.safetensors")


def test_a_file_cut_off_at_any_byte_is_refused(tmp_path, write_safetensors):
    path = write_safetensors(tmp_path / "model.safetensors", {"a": np.ones((4, 4), np.float32)})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            read_header(path)


# Checkpoints


@pytest.fixture
def sharded(tmp_path, write_safetensors):
    one = write_safetensors(tmp_path / "one.safetensors", {"a": np.ones(2, np.float32), "b": np.ones(3, np.float32)})
    two = write_safetensors(tmp_path / "two.safetensors", {"c": np.ones(4, np.float32)})
    weight_map = {"a": one.name, "b": one.name, "c": two.name}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path, weight_map


def test_shards_are_opened_by_their_index(sharded):
    folder, weight_map = sharded
    tensors = tensors_of_folder(folder)
    assert {name: tensor.path.name for name, tensor in tensors.items()} == weight_map


def test_shards_may_be_in_folders_inside(sharded):
    folder, weight_map = sharded
    (folder / "in" / "it").mkdir(parents=True)
    (folder / "two.safetensors").rename(folder / "in" / "it" / "two.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {**weight_map, "c": "in/it/two.safetensors"}}))
    assert set(tensors_of_folder(folder)) == set(weight_map)


def test_the_error_for_a_missing_shard_names_it(sharded):
    folder, _ = sharded
    (folder / "two.safetensors").unlink()
    with pytest.raises(ModelError, match=r"1 of 2 shards is missing, first 'two.safetensors'"):
        tensors_of_folder(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": "../../etc/passwd"}, "puts the tensor 'd' into"),
        ({"d": "/tmp/x.safetensors"}, "puts the tensor 'd' into"),
        ({"d": "in/../../x.safetensors"}, "puts the tensor 'd' into"),
        ({"d": "in\\x.safetensors"}, "puts the tensor 'd' into"),
        ({"d": "pytorch_model.bin"}, "puts the tensor 'd' into"),
        ({"d": 3}, "puts the tensor 'd' into"),
    ],
)
def test_a_wrong_index_is_refused(sharded, change, message):
    folder, weight_map = sharded
    (folder / INDEX).write_text(json.dumps({"weight_map": {**weight_map, **change}}))
    with pytest.raises(ModelError, match=message):
        tensors_of_folder(folder)


@pytest.mark.parametrize("change", [{"d": "two.safetensors"}, {"b": "two.safetensors"}, {"b": None}])
def test_an_index_may_name_what_no_shard_has_and_leave_out_what_one_has(sharded, change):
    folder, weight_map = sharded
    changed = {name: shard for name, shard in {**weight_map, **change}.items() if shard is not None}
    (folder / INDEX).write_text(json.dumps({"weight_map": changed}))
    tensors = tensors_of_folder(folder)
    assert {name: tensor.path.name for name, tensor in tensors.items()} == weight_map


@pytest.mark.parametrize("home", ["one.safetensors", "two.safetensors", None])
def test_of_two_tensors_with_one_name_the_last_file_counts(sharded, write_safetensors, home):
    folder, weight_map = sharded
    write_safetensors(folder / "two.safetensors", {"b": np.ones(5, np.float32), "c": np.ones(4, np.float32)})
    changed = {name: shard for name, shard in {**weight_map, "b": home}.items() if shard is not None}
    (folder / INDEX).write_text(json.dumps({"weight_map": changed}))
    assert tensors_of_folder(folder)["b"].shape == (5,)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "{", '{"a":1,"a":2}'])
def test_an_index_without_a_valid_weight_map_is_refused(sharded, text):
    folder, _ = sharded
    (folder / INDEX).write_text(text)
    with pytest.raises(ModelError, match=INDEX):
        tensors_of_folder(folder)


def test_the_error_for_a_folder_of_pickles_says_how_to_convert_them(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match="pickles") as caught:
        tensors_of_folder(tmp_path)
    assert "safe_serialization=True" in str(caught.value.cure)


def test_the_error_for_a_folder_without_weights_says_what_it_should_hold(tmp_path, write_safetensors):
    with pytest.raises(ModelError, match="no safetensors file"):
        tensors_of_folder(tmp_path)
    write_safetensors(tmp_path / "weights.safetensors", {"a": np.ones(2, np.float32)})
    assert list(tensors_of_folder(tmp_path)) == ["a"]
    write_safetensors(tmp_path / "other.safetensors", {"a": np.ones(2, np.float32)})
    with pytest.raises(ModelError, match="2 safetensors files but no"):
        tensors_of_folder(tmp_path)
