"""What a checkpoint's folder or GGUF file stores, for checking what a conversion has read of it.

This reader goes by what transformers loads, and shares no code with the readers that conversions use: a mistake there
must not hide itself.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from drupe.api import Record

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
PIECE = 8 << 20  # bytes that are compared at a time


class StoredTensor(Record):
    """Where a tensor lies. element: its type as safetensors spells it; for GGUF files, as ggml does."""

    name: str
    element: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    nbytes: int

    def equals(self, other: StoredTensor) -> bool:
        """Whether both hold the same bytes as the same numbers."""
        if (self.element, self.shape) != (other.element, other.shape):
            return False
        with self.path.open("rb") as mine, other.path.open("rb") as theirs:
            mine.seek(self.offset)
            theirs.seek(other.offset)
            left = self.nbytes
            while left:
                size = min(PIECE, left)
                if mine.read(size) != theirs.read(size):
                    return False
                left -= size
        return True

    def is_zero(self) -> bool:
        """Whether all its bytes are zero."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return not any(file.read(self.nbytes))


def stored_tensors(location: Path) -> Mapping[str, StoredTensor] | None:
    """The tensors of a GGUF file, or those that transformers loads from a folder, by name.

    None for a folder in which transformers would find no safetensors files, and for other files.
    """
    if location.is_dir():
        return _stored_in_folder(location)
    return {each.name: each for each in _stored_in_gguf(location)} if location.suffix == ".gguf" else None


def stored_in_adapter(folder: Path) -> list[StoredTensor]:
    """The tensors of an adapter, without those of a head that only repeat the embedding's, which is tied to it."""
    tied = json.loads((folder / "adapter_config.json").read_bytes()).get("ensure_weight_tying")
    found = list(_stored_in_safetensors(folder / "adapter_model.safetensors"))
    repeated = any(".lora_embedding_" in each.name for each in found)
    return [each for each in found if not (tied and repeated and ".lm_head." in each.name)]


def _stored_in_folder(folder: Path) -> Mapping[str, StoredTensor] | None:
    """A file model.safetensors counts before an index.

    All tensors of a shard count, whether the index lists them or not.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        files = [single]
    elif index.is_file():
        files = [folder / name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
    else:
        return None
    found = [each for path in files for each in _stored_in_safetensors(path)]
    for place in _modules_with_weights(folder):
        path = folder / place / "model.safetensors"
        found += _stored_in_safetensors(path, f"{place}/") if path.is_file() else []
    return {each.name: each for each in found}


def _stored_in_safetensors(path: Path, prefix: str = "") -> Iterator[StoredTensor]:
    """The tensors of a file; `prefix` comes before their names."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        place, size = 8 + length + start, stop - start
        yield StoredTensor(prefix + name, entry["dtype"], tuple(entry["shape"]), path, place, size)


def _modules_with_weights(folder: Path) -> list[str]:
    """The folders of sentence-transformers' layers after a pooling."""
    path = folder / "modules.json"
    modules = json.loads(path.read_bytes()) if path.is_file() else []
    kinds = [str(each["type"]).rpartition(".")[2] for each in modules]
    return [each["path"] for each, kind in zip(modules, kinds, strict=True) if kind == "Dense" and "Pooling" in kinds]


GGML: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 4, 1), 1: ("F16", 2, 1), 2: ("Q4_0", 18, 32), 3: ("Q4_1", 20, 32), 8: ("Q8_0", 34, 32),
    14: ("Q6_K", 210, 256), 30: ("BF16", 2, 1),
}  # fmt: skip
"""ggml's types that are converted: the name, and the bytes and values of a block. Files with others are refused."""
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9


def _stored_in_gguf(path: Path) -> Iterator[StoredTensor]:
    """https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""
    with path.open("rb") as file:
        _, _, tensors, keys = struct.unpack("<4sIQQ", file.read(24))
        metadata = {_text(file): _value(file, _number(file, "I")) for _ in range(keys)}
        infos = []
        for _ in range(tensors):
            name, axes = _text(file), _number(file, "I")
            sizes = struct.unpack(f"<{axes}Q", file.read(8 * axes))
            infos.append((name, tuple(reversed(sizes)), _number(file, "I"), _number(file, "Q")))
        start = -(-file.tell() // (alignment := metadata.get("general.alignment", 32))) * alignment
    for name, shape, kind, offset in infos:
        element, nbytes, values = GGML[kind]
        yield StoredTensor(name, element, shape, path, start + offset, math.prod(shape) // values * nbytes)


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))[0]


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, "Q")).decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == TEXT:
        return _text(file)
    if kind == ARRAY:
        kind, count = _number(file, "I"), _number(file, "Q")
        return [_value(file, kind) for _ in range(count)]
    return _number(file, NUMBERS[kind])
