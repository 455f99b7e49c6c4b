"""Safetensors: headers, which are checked completely before a tensor is used, and checkpoints of one or more files.

The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from drupe.api import ModelError, counted
from drupe_files import stays_inside, unreadable
from drupe_onnx import ir
from drupe_onnx.expressions.sources import SafetensorsTensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
NOT_THE_MODEL = {
    "adapter_": (
        "an adapter's, not a model's",
        "name its base model, and this folder with --adapter",
    ),
    "consolidated": (
        "in the form of the maker's own programs, not in that of transformers",
        "use the repository's or revision's files for transformers: model.safetensors, or shards with their index",
    ),
}
"""Files that are not read as the model, by the beginnings of their names: what they hold, and the cure."""

_LONGEST_HEADER = 100_000_000  # bytes, the format's own limit
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_TELLING = 64
"""Bytes that tell what a file is that was saved in the place of weights."""
_AGAIN = "download the file again: it is cut short or damaged"
TYPES = {
    "F64": ir.DataType.DOUBLE,
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "F8_E4M3": ir.DataType.FLOAT8E4M3FN,
    "F8_E5M2": ir.DataType.FLOAT8E5M2,
    "F8_E8M0": ir.DataType.FLOAT8E8M0,
    "I64": ir.DataType.INT64,
    "I32": ir.DataType.INT32,
    "I16": ir.DataType.INT16,
    "I8": ir.DataType.INT8,
    "U64": ir.DataType.UINT64,
    "U32": ir.DataType.UINT32,
    "U16": ir.DataType.UINT16,
    "U8": ir.DataType.UINT8,
    "BOOL": ir.DataType.BOOL,
}


def read_header(path: Path) -> dict[str, SafetensorsTensor]:
    """The tensors of a file by name, in the order of their bytes.

    Raises a ModelError that names file and tensor for a header that does not describe exactly the bytes of the file.
    """
    header, data_start, file_size = _read_json_header(path)
    header.pop("__metadata__", None)
    tensors = [_tensor(path, name, entry, data_start) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    _check_layout(path, tensors, data_start, file_size)
    return {tensor.name: tensor for tensor in tensors}


def tensors_of_folder(folder: Path) -> dict[str, SafetensorsTensor]:
    """The tensors of a checkpoint folder, by name: of one file, or of the shards that an index names.

    Where there are both, the one file counts, as in transformers.
    """
    if (folder / SINGLE).is_file():
        return read_header(folder / SINGLE)
    if (folder / INDEX).is_file():
        return _open_shards(folder)
    found = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith(tuple(NOT_THE_MODEL)))
    if len(found) == 1:
        return read_header(found[0])
    if found:
        raise ModelError(
            f"there are {len(found)} safetensors files but no {INDEX}, which lists the tensors of each",
            where=folder,
            cure=f"download {INDEX} as well",
        )
    for beginning, (what, cure) in NOT_THE_MODEL.items():
        if others := sorted(path.name for path in folder.glob(f"{beginning}*.safetensors")):
            raise ModelError(f"the only weights are {what}: {others[0]}", where=folder, cure=cure)
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"the weights are pickles ({pickles[0]}), which drupe does not read: reading a pickle can run code",
            where=folder,
            cure="load the model in transformers and call save_pretrained(FOLDER, safe_serialization=True), "
            "or use a revision of the model that has safetensors",
        )
    raise ModelError("there is no safetensors file", where=folder, cure=f"give a folder that has {SINGLE} or {INDEX}")


# One file


def _read_json_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header, where the data starts, and the size of the file."""
    try:
        with path.open("rb") as file:
            file_size = path.stat().st_size
            start = file.read(_TELLING)
            length = int.from_bytes(start[:8], "little")
            if not file_size:
                raise _bad(path, "the file is empty")
            if file_size < 8 or length > min(file_size - 8, _LONGEST_HEADER):
                _refuse_in_place_of_weights(path, start)
                raise _bad(path, f"its header would take {counted(length, 'byte')}, but the file has only {file_size}")
            file.seek(8)
            text = file.read(length)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=lambda pairs: _unique(path, pairs))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _bad(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _bad(path, "its header is not a JSON object")
    return header, 8 + length, file_size


def _refuse_in_place_of_weights(path: Path, start: bytes) -> None:
    """Raise a ModelError for a git-lfs pointer or a web page that was saved instead of weights."""
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(
            f"'{path.name}' is a git-lfs pointer, not the weights themselves",
            where=path,
            cure="git lfs pull, in the folder of the checkpoint",
        )
    if start.lstrip().startswith(b"<"):
        raise ModelError(
            f"'{path.name}' is a web page, not the weights themselves",
            where=path,
            cure="download the file itself, or give drupe the hub id",
        )


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _bad(path, f"its header names '{twice}' twice")
    return unique


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> SafetensorsTensor:
    if not (isinstance(entry, dict) and {"dtype", "shape", "data_offsets"} <= entry.keys()):
        raise _bad(path, f"the tensor '{name}' lacks dtype, shape or data_offsets")
    dtype, shape, offsets = TYPES.get(str(entry["dtype"])), entry["shape"], entry["data_offsets"]
    if dtype is None:
        raise ModelError(
            f"the tensor '{name}' has the unknown element type {entry['dtype']!r}",
            where=path,
            cure=f"use a checkpoint with one of {', '.join(TYPES)}",
        )
    if not (_counts(shape) and _counts(offsets) and len(offsets) == 2):
        raise _bad(path, f"the tensor '{name}' has shape {shape!r} and data_offsets {offsets!r}")
    start, end = offsets
    needed = math.prod(shape) * dtype.bitwidth // 8
    if end - start != needed:
        raise _bad(
            path,
            f"the tensor '{name}' ({entry['dtype']}, {shape}) needs {counted(needed, 'byte')} and has {end - start}",
        )
    return SafetensorsTensor(path=path, name=name, dtype=dtype, shape=tuple(shape), offset=data_start + start)


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(each) is int and 0 <= each < 1 << 63 for each in values)


def _check_layout(path: Path, tensors: Iterable[SafetensorsTensor], data_start: int, file_size: int) -> None:
    """Check that tensors follow one another without gaps or overlaps, and that the last one ends with the file."""
    end, before = data_start, "the header"
    for tensor in tensors:
        if tensor.offset + tensor.nbytes > file_size:
            missing = tensor.offset + tensor.nbytes - file_size
            raise _bad(path, f"the tensor '{tensor.name}' ends {counted(missing, 'byte')} after the end of the file")
        if tensor.offset < end:
            raise _bad(path, f"the tensor '{tensor.name}' overlaps with '{before}'")
        if tensor.offset > end:
            raise _bad(path, f"{tensor.offset - end} bytes before the tensor '{tensor.name}' belong to no tensor")
        end, before = tensor.offset + tensor.nbytes, tensor.name
    if end != file_size:
        raise _bad(path, f"{file_size - end} bytes at its end belong to no tensor")


def _bad(path: Path, problem: str) -> ModelError:
    return ModelError(f"'{path.name}' is not a sound safetensors file: {problem}", where=path, cure=_AGAIN)


# Several files


def _open_shards(folder: Path) -> dict[str, SafetensorsTensor]:
    """Every tensor of the shards that the index names, as in transformers: of two with one name the last file's counts.

    The index need not be complete, and may name tensors that no shard has, such as a tied head. A tensor that a model
    needs and nobody has is an error of its builder.
    """
    names = sorted(set(_read_index(folder / INDEX).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{len(missing)} of {counted(len(names), 'shard')} {'is' if len(missing) == 1 else 'are'} missing, "
            f"first '{missing[0]}'",
            where=folder,
            cure="download the missing files into the folder",
        )
    tensors: dict[str, SafetensorsTensor] = {}
    for name in names:
        tensors |= read_header(folder / name)
    return tensors


def _read_index(path: Path) -> dict[str, str]:
    try:
        document = json.loads(path.read_bytes(), object_pairs_hook=lambda pairs: _unique(path, pairs))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} is not JSON: {error}", where=path, cure="download it again") from error
    except OSError as error:
        raise unreadable(path, error) from error
    shard_of = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(shard_of, dict) or not shard_of:
        raise ModelError(f"{path.name} has no weight_map", where=path, cure="download it again")
    for name, shard in shard_of.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or not stays_inside(shard):
            raise ModelError(
                f"{path.name} puts the tensor '{name}' into {shard!r}", where=path, cure="download it again"
            )
    return shard_of
